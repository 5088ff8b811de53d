package consul_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/consul"
)

// "Consul: … namespaces": they go with every request, and with every operation of a transaction. Consul without Enterprise's
// licence refuses them, so what is sent is looked at.
func TestPlaces(t *testing.T) {
	var mu sync.Mutex
	var wrong []string
	transactions, sessions := 0, 0
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		q := r.URL.Query()
		if q.Get("ns") != "shop" || q.Get("partition") != "west" || q.Get("dc") != "eu" {
			wrong = append(wrong, r.URL.String())
		}
		switch {
		case r.URL.Path == "/v1/txn":
			body, _ := io.ReadAll(r.Body)
			var ops []struct {
				KV struct{ Namespace, Partition string }
			}
			if err := json.Unmarshal(body, &ops); err != nil || len(ops) == 0 {
				wrong = append(wrong, string(body))
			}
			for _, op := range ops {
				if op.KV.Namespace != "shop" || op.KV.Partition != "west" {
					wrong = append(wrong, string(body))
				}
			}
			transactions++
			io.WriteString(w, "{}")
		case strings.HasPrefix(r.URL.Path, "/v1/session/create"):
			sessions++
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "rpc error making call: Missing node registration")
		case strings.HasPrefix(r.URL.Path, "/v1/kv/"):
			w.WriteHeader(http.StatusNotFound)
		default:
			io.WriteString(w, "{}")
		}
	}))
	defer agent.Close()
	store, err := consul.Open(t.Context(), consul.Config{Address: agent.URL, Namespace: "shop", Partition: "west", Datacenter: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Commit(t.Context(), nil, physical.Put("a", nil), physical.Delete("b"), physical.RequireAbsent("c")); err != nil {
		t.Errorf("commit: %v", err)
	}
	if _, err := store.List(t.Context(), "", "", 0); err != nil {
		t.Errorf("list: %v", err)
	}
	// The lock is held by a session of the agent's node, which another datacenter does not know.
	_, err = store.Acquire(t.Context(), physical.Record{Holder: "a"}, 10*time.Second, 0)
	if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "another datacenter") {
		t.Errorf("acquire in another datacenter: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(wrong) > 0 || transactions == 0 || sessions == 0 {
		t.Errorf("%d transactions, %d sessions; without the places: %q", transactions, sessions, wrong)
	}
}
