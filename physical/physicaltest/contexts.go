package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/locum-ha/locum/physical"
)

// contextLimit: "All methods … return within 100 ms of their context's end".
const contextLimit = 100 * time.Millisecond

// mostOverstay is when a method is given up on.
const mostOverstay = 10 * contextLimit

type method struct {
	name string
	call func(ctx context.Context) error
}

func backendMethods(b physical.Backend) []method {
	return []method{
		{"Get", func(ctx context.Context) error { _, err := b.Get(ctx, "a"); return err }},
		{"List", func(ctx context.Context) error { _, err := b.List(ctx, "", "", 0); return err }},
		{"Fence", func(ctx context.Context) error { _, err := b.Fence(ctx); return err }},
		{"Commit", func(ctx context.Context) error { return b.Commit(ctx, nil, physical.Put("a", nil)) }},
		{"RaiseFence", func(ctx context.Context) error {
			return b.RaiseFence(ctx, physical.Fence{}, fence("ctx", 1, 1))
		}},
	}
}

// honours calls m with a context that makes ends, and fails if it does not return in time. A busy
// machine may be late once; a store that does not look at its context is late each time.
func (s *scene) honours(m method, what string, makes func() (context.Context, context.CancelFunc)) {
	s.Helper()
	var late time.Duration
	for range 3 {
		if late = overstay(m.call, makes); late <= contextLimit {
			return
		}
		if late >= mostOverstay {
			break
		}
	}
	s.Errorf("%s returned %v or more after its context had ended (%s)", m.name, late, what)
}

// overstay returns how long after its context's end call returned; negative or 0 if before.
func overstay(call func(ctx context.Context) error, makes func() (context.Context, context.CancelFunc)) time.Duration {
	ctx, cancel := makes()
	defer cancel()
	returned := make(chan time.Time, 1)
	go func() {
		_ = call(ctx)
		returned <- time.Now()
	}()
	select {
	case <-returned:
		return 0
	case <-ctx.Done():
	}
	ended := time.Now()
	select {
	case at := <-returned:
		return at.Sub(ended)
	case <-time.After(mostOverstay): // perhaps it never returns
		return mostOverstay
	}
}

func cancelledBefore() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx, cancel
}

func cancelledSoon() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(30*time.Millisecond, cancel)
	return ctx, func() { timer.Stop(); cancel() }
}

func deadlineSoon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Millisecond)
}

// checkCancelledBefore: a context that has ended already ends every method at once.
func checkCancelledBefore(s *scene) {
	for _, m := range backendMethods(s.writer()) {
		s.honours(m, "before the call", cancelledBefore)
	}
}

// checkCancelledDuring: contexts that end at any moment of a Commit. "An outcome that cannot be known is
// ErrUnknown; every other error says that nothing was written."
func checkCancelledDuring(s *scene) {
	b := s.writer()
	start := time.Now()
	s.put(b, "warm-up", "")
	typical := max(time.Since(start), 100*time.Microsecond)
	const commits = 200
	outcomes := make([]error, commits)
	s.parallel(4, func(ctx context.Context, worker int) error {
		for i := worker; i < commits; i += 4 {
			during, cancel := context.WithTimeout(ctx, rand.N(2*typical))
			outcomes[i] = b.Commit(during, nil, physical.Put(fmt.Sprintf("cut/%03d", i), nil), physical.Put(fmt.Sprintf("too/%03d", i), nil))
			cancel()
		}
		return nil
	})
	s.wantOutcomes(b, outcomes, "cut/%03d", "too/%03d")
}

// wantOutcomes compares what Commit said with what was written: where outcomes[i] is nil the entries named must be there,
// where it is an error other than ErrUnknown they must not be, and in no case only some of them.
func (s *scene) wantOutcomes(b physical.Backend, outcomes []error, keys ...string) {
	s.Helper()
	var written, refused, unknown int
	for i, outcome := range outcomes {
		there := 0
		for _, key := range keys {
			_, err := b.Get(s.ctx, fmt.Sprintf(key, i))
			if err == nil {
				there++
			} else if !errors.Is(err, physical.ErrNotFound) {
				s.Fatalf("get: %v", err)
			}
		}
		switch {
		case there != 0 && there != len(keys):
			s.Errorf("commit %d was written in part; it returned %v", i, outcome)
		case outcome == nil && there == 0:
			s.Errorf("commit %d returned nil and was not written", i)
		case outcome != nil && !errors.Is(outcome, physical.ErrUnknown) && there > 0:
			s.Errorf("commit %d was written, and returned %v, which says that it was not", i, outcome)
		}
		switch {
		case outcome == nil:
			written++
		case errors.Is(outcome, physical.ErrUnknown):
			unknown++
		default:
			refused++
		}
	}
	s.Logf("%d commits written, %d refused, %d with unknown outcome", written, refused, unknown)
}

// checkBackendBlackHole: while nothing comes through, methods end with their contexts; when it is over the
// handle serves again, and what Commit said was true.
func checkBackendBlackHole(s *scene) {
	b, net := s.faultyBackend(s.writerNode())
	s.put(b, "a", "before")
	heal := net.isolate()
	var outcomes []error
	for _, m := range backendMethods(b) {
		switch m.name {
		case "Commit": // below
			continue
		case "RaiseFence": // one that changes nothing, whenever it arrives
			m.call = func(ctx context.Context) error { return b.RaiseFence(ctx, fence("never", 1, 1), fence("never", 2, 2)) }
		}
		s.honours(m, "cancelled in a black hole", cancelledSoon)
		s.honours(m, "timed out in a black hole", deadlineSoon)
	}
	for i := range 5 {
		m := method{"Commit", func(ctx context.Context) error {
			err := b.Commit(ctx, nil, physical.Put(fmt.Sprintf("hole/%d", len(outcomes)), nil))
			outcomes = append(outcomes, err)
			return err
		}}
		s.honours(m, fmt.Sprintf("black hole, %d", i), deadlineSoon)
	}
	heal()
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		return s.writer().Commit(ctx, nil, physical.Put("after", nil))
	})
	s.wantValue(s.writer(), "a", "before")
	s.wantOutcomes(s.writer(), outcomes, "hole/%d")
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		_, err := b.Get(ctx, "a")
		return err
	})
}

// checkBackendCut: a request that was sent and got no answer is ErrUnknown, and reading back settles it: a
// Commit by its entries, a raise by its nonce.
func checkBackendCut(s *scene) {
	b, net := s.faultyBackend(s.writerNode())
	var outcomes []error
	for i := range 3 {
		heal := net.cut()
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		outcomes = append(outcomes, b.Commit(ctx, nil, physical.Put(fmt.Sprintf("cut/%d", i), nil)))
		cancel()
		heal()
	}
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		return s.writer().Commit(ctx, nil, physical.Put("after", nil))
	})
	s.wantOutcomes(s.writer(), outcomes, "cut/%d")

	b, net = s.faultyBackend(s.writerNode())
	to := fence("cut", 1, 1)
	heal := net.cut()
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	err := b.RaiseFence(ctx, physical.Fence{}, to)
	cancel()
	heal()
	var now physical.Fence
	s.eventually(s.store.Settle, func(ctx context.Context) (err error) {
		now, err = s.writer().Fence(ctx)
		return err
	})
	switch {
	case now != to && !now.IsZero():
		s.Errorf("the fence is %v after a raise from zero to %v", now, to)
	case err == nil && now != to:
		s.Errorf("a raise returned nil and the fence is %v", now)
	case err != nil && !errors.Is(err, physical.ErrUnknown) && now == to:
		s.Errorf("a raise was carried out and returned %v, which says that it was not", err)
	}
}

// checkBackendClosed: "after Close return ErrClosed"; "A second Close does nothing"; other handles go on.
func checkBackendClosed(s *scene) {
	last := s.several(2) - 1
	b := s.backend(last)
	s.put(s.writer(), "a", "kept")
	busy := make(chan error, 8)
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	for i := range cap(busy) {
		go func() { busy <- useUntilClosed(ctx, b, i%2 == 0) }()
	}
	s.must(b.Close(), "close")
	timeout := time.After(s.store.Settle)
	for range cap(busy) {
		select {
		case err := <-busy:
			s.wantErr(err, physical.ErrClosed, "a method that was under way or called later")
		case <-timeout:
			s.Fatalf("methods go on working for %v after Close", s.store.Settle)
		}
	}
	for _, m := range backendMethods(b) {
		s.wantErr(m.call(s.ctx), physical.ErrClosed, "%s after Close", m.name)
	}
	s.must(b.Close(), "a second close")
	if last > 0 && s.store.Nodes == 0 {
		s.wantValue(s.backend(0), "a", "kept")
	}
}

// useUntilClosed calls methods until one says more than that the store cannot serve now.
func useUntilClosed(ctx context.Context, b physical.Backend, writes bool) error {
	for {
		_, err := b.List(ctx, "", "", 0)
		if writes {
			err = b.Commit(ctx, nil, physical.Put("busy", nil))
		}
		if err != nil && !errors.Is(err, physical.ErrUnavailable) && !errors.Is(err, physical.ErrUnknown) || ctx.Err() != nil {
			return err
		}
	}
}
