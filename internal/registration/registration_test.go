package registration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/registration"
	"github.com/locum-ha/locum/internal/storeserver"
)

// run keeps a catalog true until the function that it returns is called.
func run(t *testing.T, catalog registration.Catalog, state *atomic.Pointer[registration.State]) (stop func() error) {
	t.Helper()
	r, err := registration.New(registration.Config{
		Catalog: catalog, State: func() registration.State { return *state.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// patience is for what comes on any machine. That it comes within a second is for test/stores to prove.
const patience = 10 * time.Second

// within waits until ok returns nil, for at most limit.
func within(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-ticker.C
	}
}

// service is what Consul's catalog shows of one.
type service struct {
	Service struct {
		ID, Address string
		Port        int
		Tags        []string
		Meta        map[string]string
	}
	Checks []struct{ CheckID, Status, Output string }
}

func inCatalog(addr string) ([]service, error) {
	resp, err := http.Get("http://" + addr + "/v1/health/service/orders?consistent")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var found []service
	return found, json.NewDecoder(resp.Body).Decode(&found)
}

// shows wants one service with the tags and a check of that status.
func shows(addr, status string, tags ...string) func() error {
	return func() error {
		found, err := inCatalog(addr)
		if err != nil || len(found) != 1 {
			return fmt.Errorf("the catalog has %d services, %w", len(found), err)
		}
		s := found[0]
		if !slices.Equal(s.Service.Tags, tags) {
			return fmt.Errorf("its tags are %v, want %v", s.Service.Tags, tags)
		}
		for _, check := range s.Checks {
			if strings.HasSuffix(check.CheckID, ":ready") && check.Status == status {
				return nil
			}
		}
		return fmt.Errorf("its checks are %+v, want one that is %s", s.Checks, status)
	}
}

// Issue 4, point 8: "Consul (service with health check, tags active, standby, sealed) … true within a second of a change and
// cleaned up at exit".
func TestConsul(t *testing.T) {
	server := storeserver.StartConsul(t, nil)
	catalog, err := registration.NewConsul(registration.ConsulConfig{
		Address: server.Addr, Service: "orders", Tags: []string{"blue"}, APIAddr: "https://192.0.2.7:8400/base", NodeName: "node-a",
	})
	if err != nil {
		t.Fatal(err)
	}
	var state atomic.Pointer[registration.State]
	state.Store(&registration.State{Initialized: true, Sealed: true, NotReady: "sealed", Version: "1.0"})
	stop := run(t, catalog, &state)
	within(t, patience, "sealed", shows(server.Addr, "critical", "sealed", "blue"))
	found, _ := inCatalog(server.Addr)
	if s := found[0].Service; s.ID != "orders:192.0.2.7:8400" || s.Address != "192.0.2.7" || s.Port != 8400 || s.Meta["node_name"] != "node-a" {
		t.Errorf("registered is %+v", s)
	}
	for range 2 {
		state.Store(&registration.State{Initialized: true, Version: "1.0"})
		within(t, patience, "standby", shows(server.Addr, "passing", "standby", "blue"))
		state.Store(&registration.State{Initialized: true, Active: true, Version: "1.0"})
		within(t, patience, "active", shows(server.Addr, "passing", "active", "blue"))
	}

	// Somebody removes it: it comes back by itself.
	req, _ := http.NewRequest(http.MethodPut, "http://"+server.Addr+"/v1/agent/service/deregister/"+found[0].Service.ID, nil)
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("deregister: %v, %v", resp, err)
	}
	within(t, patience, "removed", shows(server.Addr, "passing", "active", "blue"))

	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	state.Store(&registration.State{Initialized: true, NotReady: "shutting down", Version: "1.0"})
	within(t, patience, "after a restart of the agent", shows(server.Addr, "critical", "standby", "blue"))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "at exit", func() error {
		if found, err := inCatalog(server.Addr); err != nil || len(found) != 0 {
			return fmt.Errorf("the catalog has %+v, %w", found, err)
		}
		return nil
	})
	http.DefaultClient.CloseIdleConnections()
}

// An agent behind another server's path is reached there, as the data store's is.
func TestConsulBehindAPath(t *testing.T) {
	var mu sync.Mutex
	var strays []string
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if !strings.HasPrefix(r.URL.Path, "/consul/v1/agent/") || r.URL.Query().Get("ns") != "shop" || r.URL.Query().Get("partition") != "west" {
			strays = append(strays, r.URL.String())
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	catalog, err := registration.NewConsul(registration.ConsulConfig{
		Address: server.URL + "/consul/", APIAddr: "http://192.0.2.7:8400", Namespace: "shop", Partition: "west",
	})
	if err != nil {
		t.Fatal(err)
	}
	tell, remove := catalog.Tell(t.Context(), registration.State{Initialized: true}), catalog.Remove(t.Context())
	mu.Lock()
	defer mu.Unlock()
	if tell != nil || remove != nil || asked == 0 || len(strays) > 0 {
		t.Errorf("tell: %v; remove: %v; %d requests, elsewhere: %q", tell, remove, asked, strays)
	}
}

// A node whose agent is gone at exit says that it is still in the catalog, and does not wait long.
func TestAgentGoneAtExit(t *testing.T) {
	catalog, err := registration.NewConsul(registration.ConsulConfig{Address: "127.0.0.1:1", APIAddr: "http://192.0.2.7:8400"})
	if err != nil {
		t.Fatal(err)
	}
	var state atomic.Pointer[registration.State]
	state.Store(&registration.State{})
	start := time.Now()
	if err := run(t, catalog, &state)(); err == nil || !strings.Contains(err.Error(), "still in the catalog") {
		t.Errorf("at exit: %v", err)
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("the exit took %v", took)
	}
}

// labelled wants these labels, others beside them, or one alone.
func labelled(f *storeserver.FakeKubernetes, want map[string]string) func() error {
	return func() error {
		labels := f.Labels("shop", "orders-0")
		for name, value := range want {
			if labels[name] != value {
				return fmt.Errorf("the labels are %v, want %v", labels, want)
			}
		}
		if len(want) == 1 && len(labels) != 1 {
			return fmt.Errorf("the labels are %v", labels)
		}
		return nil
	}
}

// The same for Kubernetes: labels of the pod, with a token that is renewed meanwhile; other labels are left alone.
func TestKubernetes(t *testing.T) {
	fake := storeserver.StartFakeKubernetes(t, "one")
	fake.MakePod("shop", "orders-0", map[string]string{"app": "orders"})
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("token", "one\n")
	write("namespace", "shop")
	catalog, err := registration.NewKubernetes(registration.KubernetesConfig{URL: fake.URL, Dir: dir, Pod: "orders-0"})
	if err != nil {
		t.Fatal(err)
	}
	var state atomic.Pointer[registration.State]
	state.Store(&registration.State{Sealed: true, NotReady: "not initialised", Version: "v1.0+dirty"})
	stop := run(t, catalog, &state)
	within(t, patience, "sealed", labelled(fake, map[string]string{
		"app": "orders", "locum-active": "false", "locum-sealed": "true", "locum-initialized": "false", "locum-ready": "false", "locum-version": "v1.0_dirty",
	}))
	fake.SetToken("two")
	write("token", "two\n")
	state.Store(&registration.State{Initialized: true, Active: true, Version: "v1"})
	within(t, patience, "active", labelled(fake, map[string]string{"locum-active": "true", "locum-sealed": "false", "locum-ready": "true"}))
	state.Store(&registration.State{Initialized: true, Version: "v1"})
	within(t, patience, "standby", labelled(fake, map[string]string{"locum-active": "false", "locum-sealed": "false", "locum-ready": "true"}))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "at exit", labelled(fake, map[string]string{"app": "orders"}))
}

// A connection to Kubernetes that dies without a word costs the requests that are on it; the next one goes over another.
func TestKubernetesSilentlyDeadConnection(t *testing.T) {
	fake := storeserver.StartFakeKubernetes(t, "one")
	fake.MakePod("shop", "orders-0", nil)
	addr, ca := storeserver.StartHTTP2(t, fake)
	proxy := storeserver.NewProxy(t, addr)
	if err := os.WriteFile(filepath.Join(filepath.Dir(ca), "token"), []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	catalog, err := registration.NewKubernetes(registration.KubernetesConfig{
		URL: "https://" + proxy.Addr(), Dir: filepath.Dir(ca), Namespace: "shop", Pod: "orders-0",
	})
	if err != nil {
		t.Fatal(err)
	}
	tell := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return catalog.Tell(ctx, registration.State{Initialized: true})
	}
	if err := tell(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	for tries := 0; tries < 10 && err == nil; tries++ { // a connection more may have been on its way
		proxy.Abandon()
		err = tell(200 * time.Millisecond)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("on the dead connection: %v", err)
	}
	if err := tell(10 * time.Second); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What is missing or refused is said with what to do.
func TestKubernetesRefusals(t *testing.T) {
	fake := storeserver.StartFakeKubernetes(t, "one")
	dir := t.TempDir()
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := registration.NewKubernetes(registration.KubernetesConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), "this is no pod") {
		t.Errorf("outside of a pod: %v", err)
	}
	if _, err := registration.NewKubernetes(registration.KubernetesConfig{Dir: dir, URL: fake.URL}); err == nil || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("without a namespace: %v", err)
	}
	catalog, err := registration.NewKubernetes(registration.KubernetesConfig{Dir: dir, URL: fake.URL, Namespace: "shop", Pod: "orders-1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ token, want string }{{"", "token"}, {"wrong", `"patch" on "pods"`}, {"one", "no such pod"}} {
		if c.token != "" {
			if err := os.WriteFile(filepath.Join(dir, "token"), []byte(c.token), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := catalog.Tell(t.Context(), registration.State{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("with the token %q: %v, want %q in it", c.token, err, c.want)
		}
	}
}
