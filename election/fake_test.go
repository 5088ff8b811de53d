package election

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// fakeStore is a lock and a fence in memory, on the bubble's clock, that can be told to fail.
type fakeStore struct {
	mu      sync.Mutex
	ttl     time.Duration
	clock   func() boottime.Instant
	rec     physical.Record
	until   boottime.Instant
	token   byte
	fence   physical.Fence
	changed chan struct{}
	log     []string

	// hook is asked before every call; an error is the answer, a block hangs it.
	hook func(ctx context.Context, call string) error
}

func bubbleClock() func() boottime.Instant {
	start := time.Now()
	return func() boottime.Instant { return boottime.Instant(time.Hour + time.Since(start)) }
}

func newFakeStore(ttl time.Duration) *fakeStore {
	return &fakeStore{ttl: ttl, clock: bubbleClock(), changed: make(chan struct{})}
}

func (f *fakeStore) enter(ctx context.Context, call string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", physical.ErrUnavailable, err)
	}
	if f.hook != nil {
		return f.hook(ctx, call)
	}
	return nil
}

func (f *fakeStore) bump() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeStore) expireLocked() {
	if f.rec.Holder != "" && f.clock() >= f.until {
		f.rec.Holder, f.rec.Next = "", ""
		f.log = append(f.log, fmt.Sprintf("expired %d", f.rec.Term))
	}
}

func (f *fakeStore) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	if err := f.enter(ctx, "acquire "+r.Holder); err != nil {
		return physical.Grant{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expireLocked()
	if f.rec.Holder != "" {
		return physical.Grant{}, &physical.HeldError{Record: f.rec}
	}
	r.Term = max(f.rec.Term, above) + 1
	f.rec, f.until = r, f.clock().Add(ttl)
	f.token++
	f.log = append(f.log, fmt.Sprintf("acquired %d %s", r.Term, r.Holder))
	f.bump()
	return physical.Grant{Record: r, TTL: ttl, Token: []byte{f.token}}, nil
}

func (f *fakeStore) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	if err := f.enter(ctx, "renew "+g.Record.Holder); err != nil {
		return physical.Grant{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expireLocked()
	if f.rec != g.Record {
		return physical.Grant{}, physical.ErrLost
	}
	f.until = f.clock().Add(g.TTL)
	return g, nil
}

func (f *fakeStore) Release(ctx context.Context, g physical.Grant, next string) error {
	if err := f.enter(ctx, "release "+g.Record.Holder); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expireLocked()
	if f.rec != g.Record {
		return nil
	}
	f.rec.Holder, f.rec.Next = "", next
	f.log = append(f.log, fmt.Sprintf("released %d next=%s", f.rec.Term, next))
	f.bump()
	return nil
}

func (f *fakeStore) Holder(ctx context.Context) (physical.Record, error) {
	if err := f.enter(ctx, "holder"); err != nil {
		return physical.Record{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expireLocked()
	if f.rec.Holder == "" {
		return f.rec, physical.ErrNoHolder
	}
	return f.rec, nil
}

func (f *fakeStore) Fence(ctx context.Context) (physical.Fence, error) {
	if err := f.enter(ctx, "fence"); err != nil {
		return physical.Fence{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fence, nil
}

func (f *fakeStore) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if err := f.enter(ctx, "raise"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fence != from || !from.Below(to) {
		return physical.ErrFenced
	}
	f.fence = to
	f.log = append(f.log, fmt.Sprintf("raised %d", to.Term))
	return nil
}

func (f *fakeStore) Caps() physical.Caps {
	return physical.Caps{Name: "fake", HA: true, DefaultTTL: f.ttl, MinTTL: 100 * time.Millisecond}
}

func (f *fakeStore) Close() error { return nil }

func (f *fakeStore) history() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.log...)
}

// watchedStore is a fakeStore that wakes standbys.
type watchedStore struct{ *fakeStore }

func (w watchedStore) Caps() physical.Caps {
	c := w.fakeStore.Caps()
	c.Watch = true
	return c
}

func (w watchedStore) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	if err := w.enter(ctx, "watch"); err != nil {
		return physical.Record{}, err
	}
	for {
		w.mu.Lock()
		w.expireLocked()
		rec, changed, left := w.rec, w.changed, w.until.Sub(w.clock())
		w.mu.Unlock()
		if rec != seen {
			return rec, nil
		}
		expiry := time.NewTimer(left)
		if rec.Holder == "" {
			expiry.Stop()
		}
		select {
		case <-ctx.Done():
			expiry.Stop()
			return physical.Record{}, ctx.Err()
		case <-changed:
		case <-expiry.C:
		}
		expiry.Stop()
	}
}
