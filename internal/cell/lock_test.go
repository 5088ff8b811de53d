package cell_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// register is a cell in memory.
type register struct {
	mu      sync.Mutex
	data    []byte
	version int
	changed chan struct{}
}

func (r *register) name() string {
	if r.version == 0 {
		return ""
	}
	return strconv.Itoa(r.version)
}

func (r *register) Read(context.Context) ([]byte, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.data, r.name(), nil
}

func (r *register) Swap(_ context.Context, data []byte, version string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if version != r.name() {
		return cell.ErrChanged
	}
	r.data = data
	r.version++
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

func (r *register) Wait(ctx context.Context, version string) error {
	r.mu.Lock()
	now, changed := r.name(), r.changed
	r.mu.Unlock()
	if now != version {
		return nil
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// polled is a handle of a store that cannot wake, watched one of a store that can.
type polled struct{ *cell.Lock }

func (polled) Caps() physical.Caps {
	return physical.Caps{Name: "cell", HA: true, MinTTL: 300 * time.Millisecond, DefaultTTL: time.Second, Failover: "None."}
}

type watched struct {
	polled
	register *register
}

func (w watched) Caps() physical.Caps {
	caps := w.polled.Caps()
	caps.Watch = true
	return caps
}

func (w watched) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	return cell.Watch(ctx, w.Lock, w.register, seen)
}

// Every promise of physical.HABackend, where only whoever looks can know that a lock has run out.
func TestConformance(t *testing.T) {
	harness := func(watches bool) physicaltest.Harness {
		return func(testing.TB) physicaltest.Store {
			r := &register{changed: make(chan struct{})}
			return physicaltest.Store{
				Late: time.Second, // others have to watch for a TTL first
				Open: func(int) (physicaltest.Handle, error) {
					l := polled{cell.NewLock(r, nil)}
					if watches {
						return watched{l, r}, nil
					}
					return l, nil
				},
			}
		}
	}
	t.Run("Polled", func(t *testing.T) { physicaltest.HABackend(t, harness(false)) })
	t.Run("Watched", func(t *testing.T) { physicaltest.HABackend(t, harness(true)) })
}

// restless is a cell whose waits end at once, and which counts what is asked of it.
type restless struct {
	*register
	reads, waits atomic.Int64
}

func (r *restless) Read(ctx context.Context) ([]byte, string, error) {
	r.reads.Add(1)
	return r.register.Read(ctx)
}

func (r *restless) Wait(context.Context, string) error {
	r.waits.Add(1)
	return nil
}

// P12: a store that ends every wait at once is not asked without a pause, and its news still comes.
func TestWaitsThatEndAtOnce(t *testing.T) {
	r := &restless{register: &register{changed: make(chan struct{})}}
	l := cell.NewLock(r, nil)
	g, err := l.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context(), g, "chosen"); err != nil {
		t.Fatal(err)
	}
	free, err := l.Holder(t.Context())
	if !errors.Is(err, physical.ErrNoHolder) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := cell.Watch(ctx, l, r, free); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a watch that is told of nothing: %v", err)
	}
	if reads, waits := r.reads.Load(), r.waits.Load(); reads > 20 || waits > 20 {
		t.Errorf("in a second %d reads and %d waits", reads, waits)
	}
	if _, err := cell.NewLock(r.register, nil).Acquire(t.Context(), physical.Record{Holder: "b"}, time.Minute, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := cell.Watch(t.Context(), l, r, free); err != nil || got.Holder != "b" {
		t.Errorf("got %+v, %v", got, err)
	}
}
