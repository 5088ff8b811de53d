package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Chaos lets clients on three nodes commit without a pause while the disturbances befall the store one after the other, rounds
// times each, and then looks at what is there: all that was acknowledged, nothing that was refused, and of each commit all
// or nothing. With a fence, as an active node has it. A disturbance is a function that causes something and mends it.
func Chaos(t *testing.T, h Harness, rounds int, disturbances ...func(context.Context)) {
	t.Helper()
	runAll(t, h, []check{{"Chaos", func(s *scene) { checkChaos(s, rounds, disturbances) }}})
}

// chaosLog is what the clients were told.
type chaosLog struct {
	mu       sync.Mutex
	outcomes map[string]error // by the name of the commit
	newest   map[string]int   // by client: the highest number acknowledged
}

func (l *chaosLog) note(client string, n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes[fmt.Sprintf("%s/%06d", client, n)] = err
	if err == nil {
		l.newest[client] = n
	}
}

func checkChaos(s *scene, rounds int, disturbances []func(context.Context)) {
	f := fence("chaos", 1, 1)
	s.must(s.writer().RaiseFence(s.ctx, physical.Fence{}, f), "raise")
	log := chaosLog{outcomes: map[string]error{}, newest: map[string]int{}}
	const clients = 9
	nodes := s.writers(3)
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	s.parallel(clients+1, func(failed context.Context, i int) error {
		if i < clients {
			return commitUntil(ctx, failed, nodes[i%len(nodes)], f, fmt.Sprintf("client%d", i), &log)
		}
		defer stop()
		for range rounds {
			for _, disturb := range disturbances {
				if failed.Err() != nil {
					return nil
				}
				disturb(failed)
				pause(failed, 300*time.Millisecond)
			}
		}
		return nil
	})
	for _, b := range nodes {
		s.eventually(s.store.Settle, func(ctx context.Context) error { return b.Commit(ctx, &f, physical.Put("after", nil)) })
	}
	s.wantLog(nodes[0], &log)
}

// commitUntil commits numbers until ctx ends, each as an entry of its own and as the client's newest.
func commitUntil(ctx, failed context.Context, b physical.Backend, f physical.Fence, client string, log *chaosLog) error {
	for n := 1; ctx.Err() == nil && failed.Err() == nil; n++ {
		attempt, cancel := context.WithTimeout(failed, 2*time.Second)
		err := b.Commit(attempt, &f, physical.Put(fmt.Sprintf("log/%s/%06d", client, n), nil), physical.Put("newest/"+client, fmt.Appendf(nil, "%06d", n)))
		cancel()
		log.note(client, n, err)
		switch {
		case err == nil:
		case errors.Is(err, physical.ErrUnknown), errors.Is(err, physical.ErrUnavailable), attempt.Err() != nil:
			pause(failed, 2*pollEvery)
		default:
			return fmt.Errorf("%s, commit %d: %w", client, n, err)
		}
		pause(failed, time.Millisecond)
	}
	return nil
}

// wantLog compares what is there with what the clients were told. A commit of unknown outcome may still arrive; all have been answered
// or given up by now.
func (s *scene) wantLog(b physical.Backend, log *chaosLog) {
	s.Helper()
	there := map[string]bool{}
	for client := range log.newest {
		names, err := b.List(s.ctx, "log/"+client+"/", "", 0)
		s.must(err, "list")
		for _, name := range names {
			there[client+"/"+name] = true
		}
	}
	var acknowledged, refused, unknown int
	for name, err := range log.outcomes {
		switch {
		case err == nil:
			acknowledged++
			if !there[name] {
				s.Errorf("commit %s was acknowledged and is lost", name)
			}
		case errors.Is(err, physical.ErrUnknown):
			unknown++
		default:
			refused++
			if there[name] {
				s.Errorf("commit %s was carried out and returned %v, which says that it was not", name, err)
			}
		}
	}
	for client, n := range log.newest {
		e, err := b.Get(s.ctx, "newest/"+client)
		s.must(err, "get")
		if have := string(e.Value); have < fmt.Sprintf("%06d", n) {
			s.Errorf("%s's newest entry is %s, and %06d was acknowledged", client, have, n)
		}
		if !there[client+"/"+string(e.Value)] {
			s.Errorf("%s's commit %s was carried out in part", client, e.Value)
		}
	}
	s.Logf("%d commits acknowledged, %d refused, %d with unknown outcome", acknowledged, refused, unknown)
	if acknowledged == 0 {
		s.Errorf("no commit was acknowledged")
	}
}
