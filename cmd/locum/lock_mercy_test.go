package main

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/client"
	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/supervise"
)

// patient is a command that ends when it is asked to.
type patient struct {
	asked syscall.Signal
	once  sync.Once
	done  chan struct{}
}

func (p *patient) PID() int              { return 1 }
func (p *patient) Kill()                 {}
func (p *patient) Done() <-chan struct{} { return p.done }
func (p *patient) Exit() supervise.Exit  { return supervise.Exit{} }
func (p *patient) Signal(s syscall.Signal) error {
	p.once.Do(func() {
		p.asked = s
		close(p.done)
	})
	return nil
}

// Issue 5, 9: "the command ended before the lock can be lost". With the default values, too, it is asked to end in time to do so: when the
// next renewal would come too late for that, and whether or not the last one has been answered.
func TestLockEndsTheCommandInTime(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	c, err := client.New(client.Config{Address: silent.URL})
	if err != nil {
		t.Fatal(err)
	}
	defaults := lockFlags{ttl: time.Hour, stop: 12 * time.Minute} // in their proportions: 15s, 3s
	h := &holding{client: c, flags: defaults, deadline: boottime.Now().Add(defaults.stop + time.Second)}
	p := &patient{done: make(chan struct{})}
	held := make(chan error, 1)
	go func() { held <- h.hold(t.Context(), p, nil) }()
	select {
	case err := <-held:
		if err == nil || p.asked != syscall.SIGTERM {
			t.Errorf("ended by %v: %v", p.asked, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the command is not asked to end while it has the time to")
	}
}
