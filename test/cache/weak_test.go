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

// Some keys are put at all levels, and read in all ways. What is promised of them (docs/cache.md):
//
//   - once: lost only with the leader and the other node. One node at a time is lost here, so never: as quorum.
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
	if rnd.IntN(2) == 0 {
		in.kind, in.read = get, []cache.Read{cache.Local, cache.OwnWrites, cache.Consistent}[rnd.IntN(3)]
	}
	return in
}

// weak is an entry that is put at all levels.
var weak = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(s, in, out any) []any {
		i, o := in.(input), out.(output)
		switch {
		case i.kind == get && o.value != s:
			return nil
		case i.kind == get:
			return []any{s}
		case o.unknown, i.level == cache.Leader, i.level == cache.Direct:
			return []any{s, i.value}
		}
		return []any{i.value}
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
}

// kept reports whether a put was acknowledged at a level at which the loss of one node takes it not away.
func kept(op porcupine.Operation) bool {
	i, o := op.Input.(input), op.Output.(output)
	return i.kind == put && !o.unknown && (i.level == cache.Quorum || i.level == cache.Once)
}

// windows gives direct puts the time in which they may take effect: up to the end of a write that was asked for after they were answered.
func windows(ops []porcupine.Operation) []porcupine.Operation {
	ops = slices.Clone(ops)
	for n := range ops {
		op := &ops[n]
		if i := op.Input.(input); i.kind != put || i.level != cache.Direct || op.Output.(output).unknown {
			continue
		}
		end := int64(math.MaxInt64)
		for _, other := range ops {
			if kept(other) && other.Call > op.Return {
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
			if earlier.ended < read.call && earlier.out.version > read.out.version && earlier.out.version < undecided {
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
		if i := op.Input.(input); i.kind == put && i.value == read.out.value {
			shown, known = op.Return, op.Call < read.ended
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
		if kept(op) && op.Return < math.MaxInt64-int64(quorumLoss) && limit < read.call && shown < op.Call {
			t.Errorf("%+v shows less than %+v, which ended at %d", read, op.Input, op.Return)
			return
		}
	}
}
