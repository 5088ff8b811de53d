package physicaltest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Fault is what a [FaultyBackend] or [FaultyLock] does to the requests made on it.
type Fault int

const (
	// NoFault passes requests on.
	NoFault Fault = iota
	// CutAnswer carries requests out and loses the answer: writes return ErrUnknown, reads ErrUnavailable.
	CutAnswer
	// BlackHole loses requests: they block until their context ends, and then return as under CutAnswer.
	BlackHole
	// Delay does to the caller what BlackHole does; writes are carried out late, by the next Set.
	Delay
)

// Faults switches faults of one handle on and off. The zero value has none.
type Faults struct {
	mu      sync.Mutex
	fault   Fault
	changed chan struct{} // closed by Set and Close, so that a blocked request is tried anew
	late    []func()
}

// Set changes the fault from now on, also for requests that are blocked: those that a black hole took go
// on. Requests that were delayed and whose callers have given up are carried out before Set returns.
func (f *Faults) Set(fault Fault) {
	f.mu.Lock()
	f.fault = fault
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	late := f.late
	f.late = nil
	f.mu.Unlock()
	for _, request := range late {
		request()
	}
}

func (f *Faults) state() (Fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.fault, f.changed
}

func (f *Faults) keep(request func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = append(f.late, request)
}

// request makes one request under the fault that is set. A read leaves lost as ErrUnavailable.
func request[T any](ctx context.Context, f *Faults, lost error, do func(ctx context.Context) (T, error)) (T, error) {
	var none T
	for {
		fault, changed := f.state()
		switch fault {
		case NoFault:
			return do(ctx)
		case CutAnswer:
			if _, err := do(ctx); ctx.Err() != nil {
				return none, err
			}
			return none, fmt.Errorf("%w: cut by the test", lost)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if fault == Delay && lost == physical.ErrUnknown {
				f.keep(func() { _, _ = do(context.WithoutCancel(ctx)) })
			}
			return none, fmt.Errorf("%w: %w", lost, ctx.Err())
		}
	}
}

// FaultyBackend is a Backend whose requests meet faults.
type FaultyBackend struct {
	Faults
	backend physical.Backend
}

// NewFaultyBackend puts faults before b. Closing it closes b.
func NewFaultyBackend(b physical.Backend) *FaultyBackend { return &FaultyBackend{backend: b} }

// Get is a read.
func (f *FaultyBackend) Get(ctx context.Context, key string) (*physical.Entry, error) {
	return request(ctx, &f.Faults, physical.ErrUnavailable, func(ctx context.Context) (*physical.Entry, error) {
		return f.backend.Get(ctx, key)
	})
}

// List is a read.
func (f *FaultyBackend) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return request(ctx, &f.Faults, physical.ErrUnavailable, func(ctx context.Context) ([]string, error) {
		return f.backend.List(ctx, prefix, after, limit)
	})
}

// Commit is a write.
func (f *FaultyBackend) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	_, err := request(ctx, &f.Faults, physical.ErrUnknown, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, f.backend.Commit(ctx, fence, ops...)
	})
	return err
}

// RaiseFence is a write.
func (f *FaultyBackend) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	_, err := request(ctx, &f.Faults, physical.ErrUnknown, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, f.backend.RaiseFence(ctx, from, to)
	})
	return err
}

// Fence is a read.
func (f *FaultyBackend) Fence(ctx context.Context) (physical.Fence, error) {
	return request(ctx, &f.Faults, physical.ErrUnavailable, f.backend.Fence)
}

// Caps passes through.
func (f *FaultyBackend) Caps() physical.Caps { return f.backend.Caps() }

// Close closes the backend; requests that are blocked go on to it and find it closed.
func (f *FaultyBackend) Close() error {
	err := f.backend.Close()
	f.Set(NoFault)
	return err
}

// FaultyLock is an HABackend whose requests meet faults. It is a Watcher too; over a store that is none,
// its Watch waits for the end of the context.
type FaultyLock struct {
	Faults
	lock physical.HABackend
}

// NewFaultyLock puts faults before l. Closing it closes l.
func NewFaultyLock(l physical.HABackend) *FaultyLock { return &FaultyLock{lock: l} }

// Acquire is a write.
func (f *FaultyLock) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	return request(ctx, &f.Faults, physical.ErrUnknown, func(ctx context.Context) (physical.Grant, error) {
		return f.lock.Acquire(ctx, r, ttl, above)
	})
}

// Renew is a write.
func (f *FaultyLock) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	return request(ctx, &f.Faults, physical.ErrUnknown, func(ctx context.Context) (physical.Grant, error) {
		return f.lock.Renew(ctx, g)
	})
}

// Release is a write.
func (f *FaultyLock) Release(ctx context.Context, g physical.Grant, next string) error {
	_, err := request(ctx, &f.Faults, physical.ErrUnknown, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, f.lock.Release(ctx, g, next)
	})
	return err
}

// Holder is a read.
func (f *FaultyLock) Holder(ctx context.Context) (physical.Record, error) {
	return request(ctx, &f.Faults, physical.ErrUnavailable, f.lock.Holder)
}

// Watch is a read.
func (f *FaultyLock) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	return request(ctx, &f.Faults, physical.ErrUnavailable, func(ctx context.Context) (physical.Record, error) {
		if w, ok := f.lock.(physical.Watcher); ok {
			return w.Watch(ctx, seen)
		}
		<-ctx.Done()
		return physical.Record{}, ctx.Err()
	})
}

// Caps passes through.
func (f *FaultyLock) Caps() physical.Caps { return f.lock.Caps() }

// Close closes the lock store; requests that are blocked go on to it and find it closed.
func (f *FaultyLock) Close() error {
	err := f.lock.Close()
	f.Set(NoFault)
	return err
}
