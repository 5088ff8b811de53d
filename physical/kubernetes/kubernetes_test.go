package kubernetes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

func testConfig(t testing.TB, f *storeserver.FakeKubernetes) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{Name: "test", Namespace: "default", Server: f.URL, TokenFile: file, minTTL: 300 * time.Millisecond}
}

// Every promise of physical.HABackend and Watcher, against a fake that enforces resourceVersion.
func TestConformance(t *testing.T) {
	physicaltest.HABackend(t, func(t testing.TB) physicaltest.Store {
		f := storeserver.StartFakeKubernetes(t, "first")
		cfg := testConfig(t, f)
		return physicaltest.Store{
			Late: 1500 * time.Millisecond, // others have to watch for a TTL first
			Open: func(int) (physicaltest.Handle, error) { return Open(context.Background(), cfg) },
		}
	})
}

// The service fails while the lock is held, renewed and watched: it is away for a while, and answers get lost.
func TestOutages(t *testing.T) {
	rounds := 1
	if storeserver.Faults() {
		rounds = 10
	}
	physicaltest.LockOutages(t, func(t testing.TB) physicaltest.Store {
		f := storeserver.StartFakeKubernetes(t, "first")
		proxies := storeserver.NewProxies(t, strings.TrimPrefix(f.URL, "http://"))
		faults := storeserver.AnswerFaults()
		return physicaltest.Store{
			Late: 5 * time.Second, // others have to watch for a TTL first, on a machine that may be busy
			Open: func(n int) (physicaltest.Handle, error) {
				cfg := testConfig(t, f)
				cfg.Server = "http://" + proxies.Of(n).Addr()
				return Open(context.Background(), cfg)
			},
			Restart:    func() error { proxies.Restart(300 * time.Millisecond); return nil },
			CutAnswers: func(n int) func() { return proxies.Of(n).Disturb(faults) },
		}
	}, rounds)
}

// A connection that dies without a word costs the requests that are on it; the next one goes over another. (Over HTTP/2 it did not.)
func TestSilentlyDeadConnection(t *testing.T) {
	f := storeserver.StartFakeKubernetes(t, "first")
	addr, ca := storeserver.StartHTTP2(t, f)
	proxy := storeserver.NewProxy(t, addr)
	cfg := testConfig(t, f)
	cfg.Server, cfg.TLS.CAFile = "https://"+proxy.Addr(), ca
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storeserver.DiesSilently(t, proxy, callTimeout/2, physical.ErrNoHolder, func(ctx context.Context) error {
		_, err := s.Holder(ctx)
		return err
	})
}

// P12: the Lease of a free lock is not written for hours, and the API does not know so far back. It is watched from now on, without a
// request after the other, and its next change is seen.
func TestWatchFromLongAgo(t *testing.T) {
	f := storeserver.StartFakeKubernetes(t, "first")
	cfg := testConfig(t, f)
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Acquire(t.Context(), physical.Record{Holder: "n"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), g, ""); err != nil {
		t.Fatal(err)
	}
	f.Forget()
	free := physical.Record{Term: g.Term()}
	seen := make(chan physical.Record, 1)
	go func() {
		r, err := s.Watch(t.Context(), free)
		if err != nil {
			t.Error(err)
		}
		seen <- r
	}()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(15 * time.Second); f.Watches() < 2; <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d watches were begun, want one from the Lease's version and one from now", f.Watches())
		}
	}
	if _, err := s.Acquire(t.Context(), physical.Record{Holder: "m"}, time.Minute, 0); err != nil {
		t.Fatal(err)
	}
	if r := <-seen; r.Holder != "m" {
		t.Errorf("the watch saw %+v", r)
	}
	if n := f.Watches(); n != 2 {
		t.Errorf("%d watches were begun, want 2", n)
	}
}

// The token is read again for each request: a service account's is replaced every hour.
func TestTokenReplaced(t *testing.T) {
	f := storeserver.StartFakeKubernetes(t, "first")
	cfg := testConfig(t, f)
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Acquire(t.Context(), physical.Record{Holder: "n"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.SetToken("second")
	if _, err := s.Renew(t.Context(), g); !errors.Is(err, physical.ErrUnavailable) || strings.Contains(err.Error(), "first") {
		t.Errorf("renewal with an old token: %v", err)
	}
	if err := os.WriteFile(cfg.TokenFile, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew(t.Context(), g); err != nil {
		t.Errorf("renewal with the new token: %v", err)
	}
}

// A verb that the role does not allow is refused by name, and with what the role needs.
func TestMissingRights(t *testing.T) {
	f := storeserver.StartFakeKubernetes(t, "first")
	s, err := Open(t.Context(), testConfig(t, f))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	acquire := func() (err error) {
		_, err = s.Acquire(t.Context(), physical.Record{Holder: "n"}, time.Minute, 0)
		return err
	}
	refused := func(verb string, do func() error) {
		t.Helper()
		f.Deny(verb)
		defer f.Deny()
		err := do()
		if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "cannot "+verb) || !strings.Contains(err.Error(), `get, create, update, list and watch on "leases"`) {
			t.Errorf("without %s: %v", verb, err)
		}
	}
	refused("create", acquire)
	refused("get", acquire)
	g, err := s.Acquire(t.Context(), physical.Record{Holder: "n"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	refused("update", func() error { _, err := s.Renew(t.Context(), g); return err })
	refused("update", func() error { return s.Release(t.Context(), g, "") })
	refused("watch", func() error { _, err := s.Watch(t.Context(), g.Record); return err })
}

// A write of which nothing was sent is known to have failed; one that got no answer is not.
func TestNothingSent(t *testing.T) {
	f := storeserver.StartFakeKubernetes(t, "first")
	proxy := storeserver.NewProxy(t, strings.TrimPrefix(f.URL, "http://"))
	cfg := testConfig(t, f)
	cfg.Server = "http://" + proxy.Addr()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	swap := func() error { return s.lease.Swap(t.Context(), []byte("{}"), "") }
	proxy.CutAnswers()
	if err := swap(); !errors.Is(err, physical.ErrUnknown) {
		t.Errorf("without an answer: %v", err)
	}
	proxy.Close()
	if err := swap(); !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown) {
		t.Errorf("nobody listens: %v", err)
	}
	if err := os.Remove(cfg.TokenFile); err != nil {
		t.Fatal(err)
	}
	if err := swap(); !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown) {
		t.Errorf("without a token: %v", err)
	}
}

// Outside of a pod the configuration must say where the API is.
func TestConfig(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for want, cfg := range map[string]Config{
		"this is no pod":                 {},
		"namespace is missing":           {Server: "http://127.0.0.1:1"},
		`server "127.0.0.1" is not a`:    {Server: "127.0.0.1"},
		`name "Upper": write lower-case`: {Server: "http://127.0.0.1:1", Namespace: "default", Name: "Upper"},
	} {
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}
