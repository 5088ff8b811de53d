package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
)

// testApp is an application: an HTTP server on PORT.
func testApp() int {
	if os.Getenv("SUPERVISE_TEST_APP") == "deaf" {
		signal.Ignore(syscall.SIGTERM)
	}
	healthy := &atomic.Bool{}
	healthy.Store(true)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(500)
		}
	})
	mux.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { healthy.Store(false) })
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(9) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Environ()) })
	err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux)
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func freeAddress(t *testing.T) string {
	t.Helper()
	return storeserver.Loopback(storeserver.FreePort(t))
}

// appConfig is testApp under the guardian.
func appConfig(t *testing.T, kind string) Config {
	address := freeAddress(t)
	return Config{
		Name: "orders", Node: "node-a", Command: []string{"/proc/self/exe"}, Env: append(os.Environ(), "SUPERVISE_TEST_APP="+kind),
		Health: Health{Upstream: "http://" + address, Path: "/healthz", Interval: 20 * time.Millisecond, Failures: 2},
		Runner: guardian(t), Restarts: 2,
		Address: func() string { return "http://127.0.0.1:8400" },
	}
}

func run(t *testing.T, cfg Config) *Application {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-over:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run does not end")
		}
	})
	return a
}

func get(t *testing.T, a *Application, path string) ([]byte, error) {
	t.Helper()
	answer, err := http.Get(a.cfg.Health.Upstream + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

// mint is a Tokens that remembers.
type mint struct {
	mu      sync.Mutex
	made    int
	revoked []string
}

func (m *mint) Mint(context.Context, string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return fmt.Sprintf("token-%d", m.made), nil
}

func (m *mint) Renew(context.Context, string, string) error { return nil }
func (m *mint) RenewEvery() time.Duration                   { return time.Hour }

func (m *mint) Revoke(_ context.Context, _ string, secret string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revoked = append(m.revoked, secret)
	return nil
}

// Cold standby: it runs on the active node only; activation waits until it is healthy; it knows what it needs (issue 5, 2).
func TestCold(t *testing.T) {
	cfg := appConfig(t, "good")
	tokens := &mint{}
	cfg.Token = tokens
	cfg.RoleFile = filepath.Join(t.TempDir(), "role")
	cfg.Env = append([]string{"LOCUM_ADDR=http://elsewhere", "PORT=1", "MODE=a", "MODE=b"}, cfg.Env...) // inherited, and replaced
	a := run(t, cfg)
	if _, err := get(t, a, "/healthz"); err == nil {
		t.Fatal("a cold application runs on a standby")
	}
	if err := a.Activate(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if s := a.State(); !s.Healthy() || s.PID == 0 || !s.Role.Active || s.Role.Term != 7 {
		t.Errorf("%+v", s)
	}
	data, err := get(t, a, "/env")
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	if err := json.Unmarshal(data, &env); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"LOCUM_TERM=7", "LOCUM_NODE=node-a", "LOCUM_ROLE=active", "LOCUM_APPLICATION=orders", "LOCUM_ADDR=http://127.0.0.1:8400",
		"LOCUM_TOKEN=token-1", "PORT=" + cfg.Health.Upstream[strings.LastIndex(cfg.Health.Upstream, ":")+1:],
	} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in the environment", want)
		}
	}
	if slices.Contains(env, "MODE=a") || !slices.Contains(env, "MODE=b") || slices.Contains(env, "PORT=1") {
		t.Errorf("of two variables with one name the first was taken: %q", env)
	}
	role, _ := os.ReadFile(cfg.RoleFile)
	if want := "LOCUM_APPLICATION=orders\nLOCUM_NODE=node-a\nLOCUM_ROLE=active\nLOCUM_TERM=7\n"; string(role) != want {
		t.Errorf("role file:\n%s", role)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := a.State(); s.Phase != Stopped || s.LastExit.Signal != syscall.SIGTERM {
		t.Errorf("%+v", s)
	}
	if _, err := get(t, a, "/healthz"); err == nil {
		t.Error("it runs on")
	}
	role, _ = os.ReadFile(cfg.RoleFile)
	if !strings.Contains(string(role), "LOCUM_ROLE=standby") {
		t.Errorf("role file:\n%s", role)
	}
	await(t, "the token is revoked at stop", 5*time.Second, func() bool {
		tokens.mu.Lock()
		defer tokens.mu.Unlock()
		return slices.Equal(tokens.revoked, []string{"token-1"})
	})
}

// stop_signal, stop_timeout, then kill.
func TestStopTimeout(t *testing.T) {
	cfg := appConfig(t, "deaf")
	cfg.StopTimeout = 200 * time.Millisecond
	a := run(t, cfg)
	if err := a.Activate(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < cfg.StopTimeout || a.State().LastExit.Signal != syscall.SIGKILL {
		t.Errorf("after %s: %+v", took, a.State())
	}
	// The drain limit cuts that short.
	if err := a.Activate(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	a.cfg.StopTimeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Stop(ctx); err != nil || a.State().Phase != Stopped {
		t.Errorf("%v, %+v", err, a.State())
	}
}

// A start that fails is an error at once: the lock goes to another node.
func TestStartFails(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no such program": func(c *Config) { c.Command = []string{"/no/such/program"} },
		"ends at once":    func(c *Config) { c.Command = []string{"false"} },
		"never healthy":   func(c *Config) { c.Command, c.StartTimeout = []string{"sleep", "60"}, 100*time.Millisecond },
	} {
		cfg := appConfig(t, "good")
		change(&cfg)
		a := run(t, cfg)
		if err := a.Activate(t.Context(), 1); err == nil {
			t.Errorf("%s: activated", name)
		}
		a.Kill(errors.New("activation failed"))
		if s := a.State(); s.Phase != Stopped {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// A failing application is started again, and after "restarts" failures the node is told to step down.
func TestRestarts(t *testing.T) {
	cfg := appConfig(t, "good")
	gaveUp := make(chan error, 1)
	cfg.GiveUp = func(err error) { gaveUp <- err }
	a := run(t, cfg)
	if err := a.Activate(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for i := range cfg.Restarts + 1 {
		starts := a.State().Starts
		if i == 1 {
			_, _ = get(t, a, "/sick") // it answers, and says that it does not work
		} else {
			_, _ = get(t, a, "/exit")
		}
		if i == cfg.Restarts {
			break
		}
		await(t, "it is healthy again", 10*time.Second, func() bool { s := a.State(); return s.Healthy() && s.Starts > starts })
		select {
		case err := <-gaveUp:
			t.Fatalf("gave up after %d failures: %v", i+1, err)
		default:
		}
	}
	select {
	case err := <-gaveUp:
		if !strings.Contains(err.Error(), "3 failures") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("did not give up")
	}
}

// Warm standby: it runs on every node, and learns its role by hooks in their order; a hook can refuse.
func TestWarm(t *testing.T) {
	dir := t.TempDir()
	told := filepath.Join(dir, "told")
	var refuse atomic.Bool
	var posts atomic.Int64
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Application, Role, Node string
			Term                    uint64
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost || body.Application != "orders" || body.Term != 7 {
			t.Errorf("%s %+v %v", r.Method, body, err)
		}
		posts.Add(1)
		if refuse.Load() {
			w.WriteHeader(http.StatusConflict)
			return
		}
		f, _ := os.OpenFile(told, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		fmt.Fprintf(f, "post %s\n", body.Role)
		f.Close()
	}))
	defer hooks.Close()
	cfg := appConfig(t, "good")
	cfg.Warm = true
	cfg.OnActive = []string{`echo "command $LOCUM_ROLE $LOCUM_TERM" >> ` + told, hooks.URL}
	cfg.OnStandby = []string{hooks.URL, `echo "command $LOCUM_ROLE" >> ` + told}
	a := run(t, cfg)
	await(t, "it runs on a standby", 10*time.Second, func() bool { return a.State().Healthy() })
	pid := a.State().PID

	refuse.Store(true)
	if err := a.Activate(t.Context(), 7); err == nil || !strings.Contains(err.Error(), "refuses to be active: on_active[1]: answered 409") {
		t.Errorf("a refusal: %v", err)
	}
	refuse.Store(false)
	if err := a.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := a.Activate(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "command active 7\npost standby\ncommand standby\ncommand active 7\npost active\npost standby\ncommand standby\n"
	if got, _ := os.ReadFile(told); string(got) != want {
		t.Errorf("told:\n%swant:\n%s", got, want)
	}
	if s := a.State(); s.PID != pid || !s.Healthy() {
		t.Errorf("it was started again without a reason: %+v", s)
	}
	// A lost lease: whatever it does, it does not do it any more.
	if err := a.Activate(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	a.Kill(errors.New("lease expired"))
	await(t, "it runs again, as a standby", 10*time.Second, func() bool { s := a.State(); return s.Healthy() && s.PID != pid && !s.Role.Active })
}

// A hook that hangs is ended with all that it started, and refuses.
func TestHookTimeout(t *testing.T) {
	cfg := appConfig(t, "good")
	marker := newMarker()
	cfg.OnActive, cfg.HookTimeout = []string{"sleep " + marker + " & setsid sleep " + marker}, 300*time.Millisecond
	a := run(t, cfg)
	if err := a.Activate(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "not done within 300ms") {
		t.Errorf("%v", err)
	}
	if left := marked(marker); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// A POST that is not answered is given up just so.
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hangs.Close()
	cfg = appConfig(t, "good")
	cfg.OnActive, cfg.HookTimeout = []string{hangs.URL}, 300*time.Millisecond
	if err := run(t, cfg).Activate(t.Context(), 1); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "on_active[0]: ") {
		t.Errorf("%v", err)
	}
}

// Health by TCP: a port that nobody listens on any more is a failure like any other.
func TestHealthTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	gaveUp := make(chan error, 1)
	a := run(t, Config{
		Name: "legacy", Health: Health{TCP: ln.Addr().String(), Interval: 10 * time.Millisecond, Failures: 2, Timeout: 5 * time.Second},
		StartTimeout: 10 * time.Second, GiveUp: func(err error) { gaveUp <- err },
	})
	if err := a.Activate(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	select {
	case err := <-gaveUp:
		if !errors.Is(err, errNotHealthy) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("did not give up")
	}
}

// "a role file replaced atomically": whoever reads it at whatever time finds a whole role.
func TestRoleFileIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "role")
	write := func(term uint64) {
		if err := writeRole(path, "orders", "node-a", Role{Active: term%2 == 1, Term: term}); err != nil {
			t.Error(err)
		}
	}
	write(0)
	stop, reads := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { reads <- n }()
		for ; ; n++ {
			data, err := os.ReadFile(path)
			var term uint64
			var role string
			if err == nil {
				_, err = fmt.Sscanf(string(data), "LOCUM_APPLICATION=orders\nLOCUM_NODE=node-a\nLOCUM_ROLE=%s\nLOCUM_TERM=%d\n", &role, &term)
			}
			if err != nil || role != (Role{Active: term%2 == 1}).String() {
				t.Errorf("read %q, %v", data, err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for term := range uint64(500) {
		write(term)
	}
	close(stop)
	if n := <-reads; n == 0 {
		t.Error("nothing was read")
	}
}

// An application that someone else starts: only looked at.
func TestExternal(t *testing.T) {
	var code atomic.Int64
	code.Store(500)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) }))
	defer server.Close()
	gaveUp := make(chan error, 1)
	a := run(t, Config{
		Name: "legacy", Health: Health{Upstream: server.URL, Path: "/", Interval: 10 * time.Millisecond, Failures: 1},
		StartTimeout: 2 * time.Second, GiveUp: func(err error) { gaveUp <- err }, // long enough for the second one, which is good
	})
	if err := a.Activate(t.Context(), 1); !errors.Is(err, errNotHealthy) {
		t.Errorf("%v", err)
	}
	a.Kill(errors.New("activation failed"))
	code.Store(204)
	if err := a.Activate(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	code.Store(503)
	select {
	case <-gaveUp:
	case <-time.After(5 * time.Second):
		t.Error("did not give up")
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// Health by a command: its exit code counts, and nothing of it stays.
func TestHealthCommand(t *testing.T) {
	well := filepath.Join(t.TempDir(), "well")
	marker := newMarker()
	cfg := appConfig(t, "good")
	cfg.Health = Health{Command: []string{"sh", "-c", "(setsid sleep " + marker + " &); test -e " + well}, Interval: 20 * time.Millisecond, Failures: 2, Timeout: time.Second}
	cfg.Command, cfg.StartTimeout = []string{"sleep", "600"}, 2*time.Second // long enough for the second one, which is good
	a := run(t, cfg)
	if err := a.Activate(t.Context(), 1); !errors.Is(err, errNotHealthy) || !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
	a.Kill(errors.New("activation failed"))
	if err := os.WriteFile(well, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Activate(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(well); err != nil {
		t.Fatal(err)
	}
	starts := a.State().Starts
	await(t, "it is started again", 10*time.Second, func() bool { return a.State().Starts > starts })
	if err := a.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	await(t, "the checks' leftovers are gone", 5*time.Second, func() bool { return len(marked(marker)) == 0 })
}
