package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/locum-ha/locum/physical"
)

// patient is a store that is asked again while it cannot serve, as while it elects a leader: some ten seconds long. A commit whose
// outcome is unclear writes the same again.
type patient struct{ physical.Backend }

// inNodes reports whether a store runs in the nodes themselves, patient or not.
func inNodes(b physical.Backend) bool {
	if p, ok := b.(patient); ok {
		b = p.Backend
	}
	_, ok := b.(engine)
	return ok
}

const (
	patientTries = 10
	pauseMin     = 50 * time.Millisecond
	pauseMax     = 2 * time.Second
)

func (p patient) try(ctx context.Context, call func() error) error {
	pause := pauseMin
	for n := 1; ; n++ {
		err := call()
		if passing := errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown); !passing || n == patientTries {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		pause = min(2*pause, pauseMax)
	}
}

func (p patient) Get(ctx context.Context, key string) (e *physical.Entry, err error) {
	err = p.try(ctx, func() error { e, err = p.Backend.Get(ctx, key); return err })
	return e, err
}

func (p patient) List(ctx context.Context, prefix, after string, limit int) (names []string, err error) {
	err = p.try(ctx, func() error { names, err = p.Backend.List(ctx, prefix, after, limit); return err })
	return names, err
}

func (p patient) Fence(ctx context.Context) (f physical.Fence, err error) {
	err = p.try(ctx, func() error { f, err = p.Backend.Fence(ctx); return err })
	return f, err
}

func (p patient) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	return p.try(ctx, func() error { return p.Backend.Commit(ctx, fence, ops...) })
}
