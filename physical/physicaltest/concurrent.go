package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/locum-ha/locum/physical"
)

const manyWriters = 100

// checkAllOrNothing: 100 writers at once, each of which writes, or deletes, a whole group of keys in one commit; some
// with a condition that never holds. No state in which the members of the group disagree may ever exist. Single
// reads cannot show that, so the witnesses use conditions: whenever they read two members that disagree they commit
// on condition that both are so, and that must fail.
func checkAllOrNothing(s *scene) {
	nodes := s.writers(8)
	size := 6
	if limit := nodes[0].Caps().MaxOps; limit > 0 {
		size = min(size, limit-1)
	}
	group := make([]string, size)
	for i := range group {
		group[i] = fmt.Sprintf("group%d/member", i)
	}
	var done atomic.Bool
	var disagreed atomic.Int64
	s.parallel(manyWriters+4, func(ctx context.Context, i int) error {
		b := nodes[i%len(nodes)]
		if i < manyWriters {
			return writeGroup(ctx, b, group, i)
		}
		for !done.Load() {
			torn, err := witness(ctx, b, group)
			if err != nil {
				return err
			}
			if torn {
				disagreed.Add(1)
			}
			if i == manyWriters { // the first witness sees when the writers are through
				done.Store(writersThrough(ctx, b))
			}
		}
		return nil
	})
	s.Logf("witnesses met %d states in flux", disagreed.Load())
	for range 3 {
		if torn, err := witness(s.ctx, nodes[0], group); torn || err != nil {
			s.Errorf("at the end the group disagrees (%v)", err)
		}
	}
}

// writeGroup puts, puts and deletes the group, and tries what must not have an effect. Then it counts itself as done.
func writeGroup(ctx context.Context, b physical.Backend, group []string, id int) error {
	for round := range 3 {
		ops := make([]physical.Op, len(group))
		for i, key := range group {
			if round == 1 {
				ops[i] = physical.Delete(key)
			} else {
				ops[i] = physical.Put(key, fmt.Appendf(nil, "writer %d, round %d", id, round))
			}
		}
		if err := commitPatiently(ctx, b, ops...); err != nil {
			return fmt.Errorf("writer %d: %w", id, err)
		}
		for i, key := range group {
			ops[i] = physical.Put(key, []byte("never"))
		}
		err := commitPatiently(ctx, b, append(ops, physical.RequireValue("none", nil))...)
		if !errors.Is(err, physical.ErrConflict) {
			return fmt.Errorf("writer %d, condition that does not hold: got %w", id, err)
		}
	}
	return commitPatiently(ctx, b, physical.Put(fmt.Sprintf("through/%d", id), nil))
}

func writersThrough(ctx context.Context, b physical.Backend) bool {
	names, err := b.List(ctx, "through/", "", 0)
	return err != nil || len(names) == manyWriters
}

// witness reads the group and, if two members disagree, makes sure that they never did at one time.
func witness(ctx context.Context, b physical.Backend, group []string) (torn bool, err error) {
	seen := make([]physical.Op, len(group))
	state := make([]string, len(group))
	for i, key := range group {
		e, err := b.Get(ctx, key)
		switch {
		case err == nil:
			seen[i], state[i] = physical.RequireValue(key, e.Value), "value "+string(e.Value)
		case errors.Is(err, physical.ErrNotFound):
			seen[i], state[i] = physical.RequireAbsent(key), "absent"
		default:
			return false, fmt.Errorf("witness: %w", err)
		}
		if state[i] == "value never" {
			return true, fmt.Errorf("a commit whose condition failed wrote %q", key)
		}
	}
	for i := 1; i < len(group); i++ {
		if state[i] == state[0] {
			continue
		}
		err := commitPatiently(ctx, b, seen[0], seen[i])
		if err == nil {
			return true, fmt.Errorf("a commit was applied in part: %s holds %s while %s holds %s", group[0], state[0], group[i], state[i])
		}
		if !errors.Is(err, physical.ErrConflict) {
			return true, fmt.Errorf("witness: %w", err)
		}
		return true, nil
	}
	return false, nil
}

// commitPatiently commits, and again while the store says that it cannot serve.
func commitPatiently(ctx context.Context, b physical.Backend, ops ...physical.Op) error {
	var err error
	for range 100 {
		if err = b.Commit(ctx, nil, ops...); !errors.Is(err, physical.ErrUnavailable) {
			return err
		}
		pause(ctx, pollEvery)
	}
	return err
}

// checkOneClaimWins: of all who create one entry on condition that it is not there, exactly one succeeds.
func checkOneClaimWins(s *scene) {
	nodes := s.writers(8)
	for round := range 5 {
		key := fmt.Sprintf("claim/%d", round)
		var winner, winners atomic.Int64
		s.parallel(32, func(ctx context.Context, i int) error {
			id := strconv.Itoa(i)
			err := commitPatiently(ctx, nodes[i%len(nodes)],
				physical.RequireAbsent(key), physical.Put(key, []byte(id)), physical.Put(key+"/by/"+id, nil))
			if err == nil {
				winner.Store(int64(i))
				winners.Add(1)
			} else if !errors.Is(err, physical.ErrConflict) {
				return err
			}
			return nil
		})
		if n := winners.Load(); n != 1 {
			s.Errorf("%d of 32 claims succeeded", n)
		}
		id := strconv.FormatInt(winner.Load(), 10)
		s.wantValue(nodes[0], key, id)
		s.wantList(nodes[0], key+"/by/", "", 0, id)
	}
}

// checkCompareAndSwap: counting up by RequireValue and Put loses no count.
func checkCompareAndSwap(s *scene) {
	nodes := s.writers(8)
	s.put(nodes[0], "count", "0")
	const writers, each = 8, 10
	s.parallel(writers, func(ctx context.Context, i int) error {
		b := nodes[i%len(nodes)]
		for counted := 0; counted < each; {
			e, err := b.Get(ctx, "count")
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(e.Value))
			if err != nil {
				return err
			}
			err = commitPatiently(ctx, b, physical.RequireValue("count", e.Value), physical.Put("count", strconv.AppendInt(nil, int64(n+1), 10)))
			switch {
			case err == nil:
				counted++
			case !errors.Is(err, physical.ErrConflict):
				return err
			}
		}
		return nil
	})
	s.wantValue(nodes[0], "count", strconv.Itoa(writers*each))
}
