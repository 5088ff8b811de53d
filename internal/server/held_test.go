package server

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/locum-ha/locum/forward"
)

// P5: "arriving at any node, the one that steps down included": a node that seals waits for the requests that it holds for applications, too.
func TestHeldForApplications(t *testing.T) {
	newRouter := func() *forward.Router {
		r, err := forward.NewRouter(forward.Config{Node: "a", NodeID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	s := &Server{router: newRouter(), serving: []*serving{{router: newRouter()}}}
	app := s.serving[0].router
	app.Hold("stepping down")
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		app.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	}()
	eventually(t, "the application's request is held", func() bool { return s.held() == 1 })
	cancel()
	<-over
	if n := s.held(); n != 0 {
		t.Errorf("%d are held", n)
	}
}
