package kubernetes

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// The Lease stays readable, and is written as it was.
func TestFrozenLease(t *testing.T) {
	const value = `{"format":1,"record":{"holder":"id","name":"node","term":7},"ttl_ns":5000000000,"nonce":"AP8=","beat":9}`
	const object = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"test","namespace":"default","resourceVersion":"41",` +
		`"annotations":{"locum.io/lock":"{\"format\":1,\"record\":{\"holder\":\"id\",\"name\":\"node\",\"term\":7},\"ttl_ns\":5000000000,\"nonce\":\"AP8=\",\"beat\":9}"},` +
		`"labels":{"app.kubernetes.io/managed-by":"locum"}},"spec":{"holderIdentity":"id","leaseDurationSeconds":5,"renewTime":"NOW"}}`
	written := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			body, _ := io.ReadAll(r.Body)
			written <- string(body)
		}
		_, _ = io.WriteString(w, object)
	}))
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &lease{client: server.Client(), tokenFile: token, collection: server.URL, namespace: "default", name: "test"}
	data, version, err := l.Read(t.Context())
	if err != nil || string(data) != value || version != "41" {
		t.Errorf("%s, %q, %v", data, version, err)
	}
	if err := l.Swap(t.Context(), []byte(value), "41"); err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`"renewTime":"[-0-9T:.]{26}Z"`).ReplaceAllString(<-written, `"renewTime":"NOW"`)
	if got != object {
		t.Errorf("the Lease is now\n%s\nwant\n%s", got, object)
	}
}
