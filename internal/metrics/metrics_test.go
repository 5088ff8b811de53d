package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	gometrics "github.com/hashicorp/go-metrics"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/locum-ha/locum/physical"
)

// scrape returns the page as Prometheus gets it.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/sys/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wants(t *testing.T, page string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(page, line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			name, _, _ = strings.Cut(name, " ")
			t.Errorf("no line %q; there is:\n%s", line, strings.Join(regexp.MustCompile(`(?m)^`+name+`.*$`).FindAllString(page, 30), "\n"))
		}
	}
}

// Each observer's func moves its metric.
func TestObservers(t *testing.T) {
	m := New("1.2.3")
	m.Watch(func() State {
		return State{Active: true, LeaderKnown: true, Term: 7, LeaseRemaining: 1500 * time.Millisecond, KeyTerm: 2, KeyUses: 99}
	})
	ms := time.Millisecond

	e := m.Election()
	e.Renewed(3*ms, nil)
	e.Renewed(2*time.Second, fmt.Errorf("renewing: %w", physical.ErrUnknown))
	e.Fenced(7)
	e.Activated(7, 40*ms)
	e.Ended(7, false, errors.New("lost"))
	e.LeaderlessFor(700 * ms)

	b := m.Barrier()
	b.Operation("get", ms, nil)
	b.Operation("commit", ms, physical.ErrConflict)
	b.Rotated(3, true)
	b.Reloaded(nil)

	f := m.Forward()
	f.Local(ms, 200)
	f.Forwarded(ms, 503)
	f.Forwarded(ms, 700)
	f.Held(300*ms, true)
	f.HeldNow(3)
	f.HeldNow(-1)
	f.Redirected()
	f.Repeated()
	f.Unknown()
	f.Refused()
	f.Connected("id-b", true)

	m.API().Request("kv", "GET", 200, ms)
	m.API().Request("kv", "MADE-UP", 405, ms)

	c := m.Cluster()
	c.Open(true)
	c.Accepted("locum-raft/1", 5*ms)
	c.Refused("timeout")

	r := m.Raft()
	r.Leading(true)
	r.Committed(12, 4096, 2*ms)
	r.Stored(3, ms)
	r.Snapshot(time.Second, nil)
	r.Refused("vote")

	wants(t, scrape(t, m),
		"locum_is_active 1", "locum_is_sealed 0", "locum_active_node_known 1", "locum_term 7", "locum_lease_remaining_seconds 1.5",
		"locum_without_active_now_seconds 0", "locum_barrier_key_term 2", "locum_barrier_key_encryptions 99",
		`locum_lock_renewal_seconds_count{outcome="ok"} 1`, `locum_lock_renewal_seconds_count{outcome="unknown"} 1`,
		"locum_lock_renewal_failures_total 1", "locum_fence_raises_total 1", "locum_leaderships_total 1",
		`locum_leaderships_ended_total{planned="false"} 1`, `locum_leaderships_ended_total{planned="true"} 0`,
		"locum_activation_seconds_count 1", "locum_without_active_seconds_total 0.7", "locum_without_active_seconds_count 1",
		`locum_barrier_operation_seconds_count{op="get",outcome="ok"} 1`, `locum_barrier_operation_seconds_count{op="commit",outcome="conflict"} 1`,
		`locum_barrier_rotations_total{automatic="true"} 1`, `locum_barrier_keyring_reloads_total{outcome="ok"} 1`,
		`locum_request_seconds_count{code="2xx",way="local"} 1`, `locum_request_seconds_count{code="5xx",way="forwarded"} 1`, `locum_request_seconds_count{code="other",way="forwarded"} 1`,
		`locum_hold_seconds_count{served="true"} 1`, "locum_held_requests 2", "locum_requests_redirected_total 1", "locum_requests_repeated_total 1",
		"locum_requests_unknown_total 1", "locum_requests_refused_total 1", "locum_forward_connections 1",
		`locum_api_request_seconds_count{class="kv",code="200",method="GET"} 1`, `locum_api_request_seconds_count{class="kv",code="405",method="other"} 1`,
		"locum_cluster_port_open 1", `locum_cluster_connections{protocol="locum-raft/1"} 1`, `locum_cluster_refused_total{reason="timeout"} 1`,
		"locum_raft_is_leader 1", "locum_raft_commit_batch_sum 12", "locum_raft_commit_bytes_total 4096", "locum_raft_log_batch_sum 3",
		`locum_raft_snapshot_seconds_count{outcome="ok"} 1`, `locum_raft_refused_total{what="vote"} 1`, "locum_fence_rejections_total 0",
	)
	c.Ended("locum-raft/1")
	wants(t, scrape(t, m), `locum_cluster_connections{protocol="locum-raft/1"} 0`)
}

// Prometheus's own linter has nothing to say of names, units and help texts.
func TestConventions(t *testing.T) {
	m := New("1.2.3")
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "locum_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	page := scrape(t, m)
	for _, line := range strings.Split(page, "\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "# HELP "), " ")
		if line != "" && !strings.HasPrefix(line, "# TYPE") && !regexp.MustCompile(`^(locum|go|process)_`).MatchString(name) {
			t.Errorf("odd line %q", line)
		}
	}
	wants(t, page, `locum_build_info{go="`+runtime.Version()+`",version="1.2.3"} 1`)
}

// Several nodes in one process do not share a number.
func TestInstancesAreApart(t *testing.T) {
	a, b := New("1"), New("1")
	a.Forward().Repeated()
	wants(t, scrape(t, a), "locum_requests_repeated_total 1")
	wants(t, scrape(t, b), "locum_requests_repeated_total 0")
}

func TestEngine(t *testing.T) {
	m := New("1")
	s := m.engine
	s.SetGauge([]string{"raft", "commitNumLogs"}, 3)
	s.IncrCounter([]string{"raft", "apply"}, 2)
	s.IncrCounter([]string{"raft", "apply"}, 1)
	peer := []gometrics.Label{{Name: "peer_id", Value: "id-b"}}
	s.AddSampleWithLabels([]string{"raft", "replication", "appendEntries", "rpc"}, 1.5, peer)
	s.AddSampleWithLabels([]string{"raft", "replication", "appendEntries", "rpc"}, 2.5, peer)
	s.SetGaugeWithLabels([]string{"raft", "odd"}, 1, []gometrics.Label{{Name: "no label-name", Value: "x"}})
	s.SetGauge([]string{"raft", "apply"}, 9) // the name is a counter's
	page := scrape(t, m)
	wants(t, page, "locum_raft_engine_commitNumLogs 3", "locum_raft_engine_apply 3",
		`locum_raft_engine_replication_appendEntries_rpc_sum{peer_id="id-b"} 4`, `locum_raft_engine_replication_appendEntries_rpc_count{peer_id="id-b"} 2`)

	// P12: names that never end are bounded.
	for i := range 2 * maxSeries {
		s.SetGauge([]string{"raft", fmt.Sprint("made_up_", i)}, 1)
	}
	if n := len(s.series); n != maxSeries {
		t.Errorf("%d series", n)
	}
}

// fakeStore is a store whose every operation ends as it is told.
type fakeStore struct{ err error }

func (s fakeStore) Get(context.Context, string) (*physical.Entry, error)             { return nil, s.err }
func (s fakeStore) List(context.Context, string, string, int) ([]string, error)      { return nil, s.err }
func (s fakeStore) Commit(context.Context, *physical.Fence, ...physical.Op) error    { return s.err }
func (s fakeStore) RaiseFence(context.Context, physical.Fence, physical.Fence) error { return s.err }
func (s fakeStore) Fence(context.Context) (physical.Fence, error)                    { return physical.Fence{}, s.err }
func (s fakeStore) Caps() physical.Caps                                              { return physical.Caps{Name: "fake"} }
func (s fakeStore) Close() error                                                     { return nil }

type fakeLock struct{ fakeStore }

func (s fakeLock) Acquire(context.Context, physical.Record, time.Duration, uint64) (physical.Grant, error) {
	return physical.Grant{}, s.err
}
func (s fakeLock) Renew(context.Context, physical.Grant) (physical.Grant, error) {
	return physical.Grant{}, s.err
}
func (s fakeLock) Release(context.Context, physical.Grant, string) error { return s.err }
func (s fakeLock) Holder(context.Context) (physical.Record, error)       { return physical.Record{}, s.err }

type watching struct{}

func (watching) Watch(context.Context, physical.Record) (physical.Record, error) {
	return physical.Record{Holder: "watched"}, nil
}

type yielding struct{}

func (yielding) Yield(context.Context, string) error { return nil }

type (
	lockAndWatch struct {
		fakeLock
		watching
	}
	lockAndYield struct {
		fakeLock
		yielding
	}
	lockAndAll struct {
		fakeLock
		watching
		yielding
	}
)

// The wrapped store has exactly the powers of the one inside.
func TestStorageKeepsPowers(t *testing.T) {
	m := New("1")
	for _, store := range []physical.Backend{fakeStore{}, fakeLock{}, lockAndWatch{}, lockAndYield{}, lockAndAll{}} {
		compare := func(what string, wrapped any) {
			_, lockIn := store.(physical.HABackend)
			_, lockOut := wrapped.(physical.HABackend)
			_, watchIn := store.(physical.Watcher)
			_, watchOut := wrapped.(physical.Watcher)
			_, yieldIn := store.(physical.Yielder)
			_, yieldOut := wrapped.(physical.Yielder)
			if lockIn != lockOut || watchIn != watchOut || yieldIn != yieldOut {
				t.Errorf("%s of %T: lock %v/%v, watch %v/%v, yield %v/%v", what, store, lockIn, lockOut, watchIn, watchOut, yieldIn, yieldOut)
			}
		}
		wrapped := m.Storage(store)
		compare("Storage", wrapped)
		if wrapped.Caps().Name != "fake" {
			t.Error("Caps of another store")
		}
		if lock, ok := store.(physical.HABackend); ok {
			compare("Lock", m.Lock(lock))
		}
	}
}

func TestStorageOutcomes(t *testing.T) {
	m := New("1")
	ctx := context.Background()
	for err, outcome := range map[error]string{
		nil: "ok", physical.ErrNotFound: "not_found", physical.ErrConflict: "conflict", physical.ErrFenced: "fenced",
		&physical.TooLargeError{What: "value"}: "refused", physical.ErrInvalid: "refused", physical.ErrUnknown: "unknown",
		physical.ErrUnavailable: "unavailable", physical.ErrClosed: "unavailable", context.Canceled: "cancelled", errors.New("odd"): "error",
	} {
		if got := outcomeOf(err); got != outcome {
			t.Errorf("%v is %q, want %q", err, got, outcome)
		}
		s := m.Storage(lockAndAll{fakeLock: fakeLock{fakeStore{err}}})
		s.Get(ctx, "a")
		s.List(ctx, "", "", 0)
		s.Commit(ctx, nil)
		s.RaiseFence(ctx, physical.Fence{}, physical.Fence{})
		s.Fence(ctx)
		l := s.(physical.HABackend)
		l.Acquire(ctx, physical.Record{}, 0, 0)
		l.Renew(ctx, physical.Grant{})
		l.Release(ctx, physical.Grant{}, "")
		l.Holder(ctx)
		s.(physical.Yielder).Yield(ctx, "")
		if r, _ := s.(physical.Watcher).Watch(ctx, physical.Record{}); r.Holder != "watched" {
			t.Error("Watch went elsewhere")
		}
	}
	page := scrape(t, m)
	for _, op := range []string{"get", "list", "commit", "raise_fence", "fence"} {
		wants(t, page, `locum_storage_operation_seconds_count{op="`+op+`",outcome="ok"} 1`, `locum_storage_operation_seconds_count{op="`+op+`",outcome="unavailable"} 2`)
	}
	for _, op := range []string{"acquire", "renew", "release", "holder"} {
		wants(t, page, `locum_lock_operation_seconds_count{op="`+op+`",outcome="error"} 1`)
	}
	wants(t, page, "locum_fence_rejections_total 2") // a commit and a raise
}

func BenchmarkStorageGet(b *testing.B) {
	s := New("1").Storage(fakeStore{})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		s.Get(ctx, "a")
	}
}

// Named locks: what their observer is told.
func TestLocks(t *testing.T) {
	m := New("test")
	o := m.Locks()
	o.Acquired(time.Second)
	o.Refused()
	o.Expired()
	wants(t, scrape(t, m), "locum_named_lock_wait_seconds_sum 1", "locum_named_lock_refused_total 1", "locum_named_lock_expired_total 1")
}
