package cache_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/locum-ha/locum/cache"
)

// Some keys are put and removed at all levels, and read in all ways. What is promised of them (docs/cache.md):
//
//   - once: with three hosts lost only with the leader and the other node. One of three at a time is lost here, so never: as quorum. With
//     more hosts it may be lost with the leader.
//   - leader: it takes effect before it is answered, or is lost with the leader.
//   - direct: it takes effect some time, or gives way; never after a write that was asked for after it was answered.
//   - a local read is at most quorumLoss behind; a read of one's own writes shows what was acknowledged on its node;
//     neither goes back on its node.

// quorumLoss is the quorum loss time-out of nodes whose election time-out is not longer than half a second.
const quorumLoss = 2 * time.Second

// undecided is the least version with which a read shows a direct put that the log has not decided.
const undecided = 1 << 63

func isWeak(key string) bool { return strings.HasPrefix(key, "w") }

// anyLevel makes an operation on such a key; more writes at quorum than at any other level end the others' windows.
func anyLevel(rnd *rand.Rand, in input) input {
	in.kind, in.key = put, fmt.Sprint("w", rnd.IntN(2))
	in.level = []cache.Level{cache.Quorum, cache.Quorum, cache.Once, cache.Leader, cache.Direct}[rnd.IntN(5)]
	switch rnd.IntN(10) {
	case 0:
		in.kind = remove
	case 1:
		in.kind = take
	case 2, 3, 4, 5, 6:
		in.kind, in.read = get, []cache.Read{cache.Local, cache.OwnWrites, cache.Consistent}[rnd.IntN(3)]
	}
	return in
}

// weak is an entry that is written at all levels.
func (r *recorder) weak() *porcupine.NondeterministicModel {
	return &porcupine.NondeterministicModel{
		Init: func() []any { return []any{""} },
		Step: func(s, in, out any) []any {
			i, o := in.(input), out.(output)
			after := i.value
			switch i.kind {
			case get:
				if o.value != s {
					return nil
				}
				return []any{s}
			case take:
				if !o.unknown && o.value != s {
					return nil
				}
				after = ""
			case remove:
				after = ""
			}
			if r.kept(porcupine.Operation{Input: in, Output: out}) {
				return []any{after}
			}
			return []any{s, after}
		},
		DescribeOperation: model.DescribeOperation,
	}
}

// kept reports whether a write was acknowledged at a level at which the loss of a minority takes it not away.
func (r *recorder) kept(op porcupine.Operation) bool {
	i, o := op.Input.(input), op.Output.(output)
	return !i.reads() && !o.unknown && (i.kind == take || i.level == cache.Quorum || i.level == cache.Once && r.size <= 3)
}

// windows gives direct puts the time in which they may take effect: up to the end of a write that was asked for after they were answered.
func (r *recorder) windows(ops []porcupine.Operation) []porcupine.Operation {
	ops = slices.Clone(ops)
	for n := range ops {
		op := &ops[n]
		if i := op.Input.(input); i.kind != put || i.level != cache.Direct || op.Output.(output).unknown {
			continue
		}
		end := int64(math.MaxInt64)
		for _, other := range ops {
			if r.kept(other) && other.Call > op.Return {
				end = min(end, other.Return)
			}
		}
		op.Return, op.ClientId = end, -1-n
	}
	return ops
}

// nearRead is a read that asked nobody else.
type nearRead struct {
	host, key   string
	read        cache.Read
	out         output
	call, ended int64
}

// checkNear checks the reads that asked nobody else.
func (r *recorder) checkNear(t *testing.T) {
	t.Helper()
	t.Logf("%d local reads", len(r.near))
	slices.SortFunc(r.near, func(a, b nearRead) int { return cmp.Compare(a.call, b.call) })
	type place struct{ host, key string }
	before := map[place][]nearRead{}
	for _, read := range r.near {
		at := place{read.host, read.key}
		for _, earlier := range before[at] {
			if earlier.ended < read.call && read.out.found && earlier.out.version > read.out.version && earlier.out.version < undecided {
				t.Errorf("went back: %+v after %+v", read, earlier)
			}
		}
		before[at] = append(before[at], read)
		if len(before[at]) > 64 { // enough to compare with
			before[at] = before[at][1:]
		}
		r.checkFresh(t, read)
	}
}

// checkFresh fails the test if the read should have shown a later write than it did.
func (r *recorder) checkFresh(t *testing.T, read nearRead) {
	t.Helper()
	shown := int64(-1) // when the write ended whose value was shown
	known := read.out.value == ""
	for _, op := range r.keys[read.key] {
		switch i := op.Input.(input); {
		case i.kind == put && i.value == read.out.value:
			shown, known = op.Return, op.Call < read.ended
		case (i.kind == remove || i.kind == take) && !read.out.found && op.Call < read.ended:
			shown = max(shown, op.Return)
		}
	}
	if !known {
		t.Errorf("nobody wrote what %+v shows", read)
		return
	}
	for _, op := range r.keys[read.key] {
		own := read.read == cache.OwnWrites && r.hosts[read.key][op.Input.(input).value] == read.host
		limit := op.Return
		if !own {
			limit += int64(quorumLoss)
		}
		if r.kept(op) && op.Return < math.MaxInt64-int64(quorumLoss) && limit < read.call && shown < op.Call {
			t.Errorf("%+v shows less than %+v, which ended at %d", read, op.Input, op.Return)
			return
		}
	}
}
