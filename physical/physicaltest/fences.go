package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/locum-ha/locum/physical"
)

// fence makes the fence of a term, with a nonce that differs by n.
func fence(lineage string, term uint64, n byte) physical.Fence {
	f := physical.Fence{Lineage: lineage, Term: term}
	f.Nonce[0], f.Nonce[15] = byte(term), n
	return f
}

// others returns fences that differ from f in one field only, the nonce in its first or last byte.
func others(f physical.Fence) map[string]physical.Fence {
	lineage, longer, above, below, first, last := f, f, f, f, f, f
	lineage.Lineage = "other"
	longer.Lineage += "x"
	above.Term++
	below.Term--
	first.Nonce[0] ^= 0x80
	last.Nonce[15] ^= 1
	return map[string]physical.Fence{
		"lineage": lineage, "longer lineage": longer, "term above": above, "term below": below,
		"nonce, first byte": first, "nonce, last byte": last, "zero": {},
	}
}

// checkFenceFirst: "The first fence is raised from the zero Fence", and is no entry.
func checkFenceFirst(s *scene) {
	b := s.writer()
	s.wantFence(b, physical.Fence{})
	one := fence("l", 7, 1)
	s.wantErr(b.Commit(s.ctx, &one, physical.Put("a", nil)), physical.ErrFenced, "a fenced commit while there is no fence")
	s.wantErr(b.RaiseFence(s.ctx, one, fence("l", 8, 1)), physical.ErrFenced, "a raise from a fence that never was")
	s.wantErr(b.RaiseFence(s.ctx, physical.Fence{}, physical.Fence{}), physical.ErrFenced, "a raise to zero")
	s.wantErr(b.RaiseFence(s.ctx, physical.Fence{}, fence("", 1, 1)), physical.ErrFenced, "a raise without a lineage")
	s.wantFence(b, physical.Fence{})
	s.wantNone(b, "a")
	s.put(b, "a", "unfenced")
	s.must(b.RaiseFence(s.ctx, physical.Fence{}, one), "the first raise")
	s.wantFence(b, one)
	s.wantList(b, "", "", 0, "a")
}

// checkFenceGuardsCommit: "With a fence the ops are applied only while the stored fence is exactly that
// one, checked in the same transaction (P1); otherwise ErrFenced. Without a fence (nil) a commit succeeds
// only while the store has no fence yet; otherwise ErrFenced." "All three fields are compared."
func checkFenceGuardsCommit(s *scene) {
	b := s.writer()
	s.put(b, "a", "before")
	now := fence("lineage", 3, 1)
	s.must(b.RaiseFence(s.ctx, physical.Fence{}, now), "raise")
	s.must(b.Commit(s.ctx, &now, physical.Put("a", []byte("fenced"))), "commit with the fence")
	for what, f := range others(now) {
		err := b.Commit(s.ctx, &f, physical.Put("a", []byte(what)), physical.Put("b", nil))
		s.wantErr(err, physical.ErrFenced, "commit, differing in %s", what)
		s.wantErr(b.Commit(s.ctx, &f), physical.ErrFenced, "commit of no ops, differing in %s", what)
		err = b.Commit(s.ctx, &f, physical.RequireValue("a", []byte("fenced")))
		s.wantErr(err, physical.ErrFenced, "commit of a condition, differing in %s", what)
	}
	s.wantErr(b.Commit(s.ctx, nil, physical.Put("a", nil)), physical.ErrFenced, "unfenced commit")
	s.wantErr(b.Commit(s.ctx, nil, physical.Delete("a")), physical.ErrFenced, "unfenced delete")
	s.wantValue(b, "a", "fenced")
	s.wantNone(b, "b")
	s.must(b.Commit(s.ctx, &now), "commit of no ops with the fence")
	s.wantErr(b.Commit(s.ctx, &now, physical.RequireAbsent("a"), physical.Put("b", nil)), physical.ErrConflict, "condition under the fence")
	s.wantNone(b, "b")
	for n := range s.several(3) {
		if s.store.Writer == nil {
			key := fmt.Sprintf("by/%d", n)
			s.must(s.backend(n).Commit(s.ctx, &now, physical.Put(key, nil)), "commit with the fence at node %d", n)
			s.wantErr(s.backend(n).Commit(s.ctx, nil, physical.Delete(key)), physical.ErrFenced, "unfenced commit at node %d", n)
		}
	}
}

// checkFenceRises: RaiseFence "returns ErrFenced if the stored one is not from any more, or if to is not
// higher. … A higher term, of whichever lineage."
func checkFenceRises(s *scene) {
	b := s.writer()
	now := fence("one", 5, 1)
	s.must(b.RaiseFence(s.ctx, physical.Fence{}, now), "raise")
	for what, from := range others(now) {
		s.wantErr(b.RaiseFence(s.ctx, from, fence("one", 9, 9)), physical.ErrFenced, "raise from one that differs in %s", what)
	}
	for what, to := range map[string]physical.Fence{
		"the same": now, "the same term": fence("one", 5, 2), "lower": fence("one", 4, 2), "zero": {},
		"the same term of another lineage": fence("two", 5, 2), "lower of another lineage": fence("two", 1, 2),
		"higher without a lineage": fence("", 6, 2),
	} {
		s.wantErr(b.RaiseFence(s.ctx, now, to), physical.ErrFenced, "raise to %s", what)
	}
	s.wantFence(b, now)
	for _, to := range []physical.Fence{fence("one", 6, 1), fence("one", 1000, 1), fence("two", 1001, 1), fence("one", 1<<62, 1)} {
		s.must(b.RaiseFence(s.ctx, now, to), "raise to %v", to)
		s.wantErr(b.RaiseFence(s.ctx, now, to), physical.ErrFenced, "the same raise again")
		s.wantErr(b.Commit(s.ctx, &now, physical.Put("a", nil)), physical.ErrFenced, "commit with the fence before")
		now = to
		s.wantFence(b, now)
		s.must(b.Commit(s.ctx, &now, physical.Put("b", nil)), "commit with the new fence")
	}
	s.wantNone(b, "a")
}

// checkFenceRace: of several that raise from the same fence, to the same term or to different ones, exactly one wins, and
// Fence tells which by its nonce.
func checkFenceRace(s *scene) {
	nodes := s.writers(8)
	from := physical.Fence{}
	for round := range 10 {
		to := func(i int) physical.Fence { return fence("race", uint64(10*round+1+(i+round)%4), byte(i)) }
		var winner, winners atomic.Int64
		s.parallel(16, func(ctx context.Context, i int) error {
			err := nodes[i%len(nodes)].RaiseFence(ctx, from, to(i))
			if err == nil {
				winner.Store(int64(i))
				winners.Add(1)
			} else if !errors.Is(err, physical.ErrFenced) {
				return err
			}
			return nil
		})
		if n := winners.Load(); n != 1 {
			s.Fatalf("%d of 16 raises from one fence succeeded", n)
		}
		from = to(int(winner.Load()))
		for _, b := range nodes {
			s.wantFence(b, from)
		}
	}
}

// checkFenceStopsWriters: from the instant that a raise has returned, the writers of the term before
// change nothing (P1), however many commits they have on their way.
func checkFenceStopsWriters(s *scene) {
	nodes := s.writers(8)
	now := fence("stop", 1, 0)
	s.must(nodes[0].RaiseFence(s.ctx, physical.Fence{}, now), "raise")
	for round := range 5 {
		r := &fenceRound{started: make(chan struct{}), raised: make(chan struct{}), from: now, to: fence("stop", uint64(round)+2, 0)}
		var before map[string]string
		s.parallel(fencedWriters+1, func(ctx context.Context, i int) error {
			b := nodes[i%len(nodes)]
			if i < fencedWriters {
				return r.write(ctx, b, i)
			}
			err := r.raise(ctx, b)
			if err == nil {
				before, err = writtenBy(ctx, b)
			}
			return err
		})
		after, err := writtenBy(s.ctx, nodes[0])
		s.must(err, "read")
		for key, value := range before {
			if after[key] != value {
				s.Errorf("%s changed from %q to %q after the fence was raised", key, value, after[key])
			}
		}
		now = r.to
	}
}

const fencedWriters = 16

// fenceRound is one raise while writers of the term before write.
type fenceRound struct {
	committed       atomic.Int64
	started, raised chan struct{}
	from, to        physical.Fence
}

func (r *fenceRound) raise(ctx context.Context, b physical.Backend) error {
	defer close(r.raised)
	select {
	case <-r.started:
	case <-ctx.Done():
		return nil
	}
	if err := b.RaiseFence(ctx, r.from, r.to); err != nil {
		return fmt.Errorf("raise: %w", err)
	}
	return nil
}

// write commits under the fence before until it is refused.
func (r *fenceRound) write(ctx context.Context, b physical.Backend, i int) error {
	for n := 0; ; n++ {
		late := false
		select {
		case <-r.raised:
			late = true
		default:
		}
		err := b.Commit(ctx, &r.from, physical.Put(fmt.Sprintf("w/%d", i), fmt.Appendf(nil, "term %d, %d", r.from.Term, n)))
		switch {
		case errors.Is(err, physical.ErrFenced):
			return nil
		case err != nil:
			return err
		case late:
			return fmt.Errorf("a commit that began after the fence was raised to %v was applied under %v", r.to, r.from)
		}
		if r.committed.Add(1) == fencedWriters {
			close(r.started)
		}
	}
}

// writtenBy returns what the writers have written.
func writtenBy(ctx context.Context, b physical.Backend) (map[string]string, error) {
	values := make(map[string]string)
	for i := range fencedWriters {
		key := fmt.Sprintf("w/%d", i)
		e, err := b.Get(ctx, key)
		switch {
		case err == nil:
			values[key] = string(e.Value)
		case errors.Is(err, physical.ErrNotFound):
			values[key] = ""
		default:
			return nil, err
		}
	}
	return values, nil
}

// checkFenceSurvivesRestart: the fence is kept as the entries are.
func checkFenceSurvivesRestart(s *scene) {
	now := fence("kept", 41, 1)
	b := s.writer()
	s.put(b, "a", "1")
	s.must(b.RaiseFence(s.ctx, physical.Fence{}, now), "raise")
	s.restart()
	b = s.writer()
	s.wantFence(b, now)
	s.wantErr(b.Commit(s.ctx, nil, physical.Put("a", nil)), physical.ErrFenced, "unfenced commit after a restart")
	s.wantErr(b.RaiseFence(s.ctx, physical.Fence{}, fence("kept", 42, 1)), physical.ErrFenced, "raise from zero after a restart")
	s.must(b.Commit(s.ctx, &now, physical.Put("a", []byte("2"))), "fenced commit after a restart")
	s.must(b.RaiseFence(s.ctx, now, fence("kept", 42, 1)), "raise after a restart")
}

func (s *scene) wantFence(b physical.Backend, want physical.Fence) {
	s.Helper()
	got, err := b.Fence(s.ctx)
	s.must(err, "fence")
	if got != want {
		s.Errorf("the fence is %v, want %v", got, want)
	}
}
