package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/locum-ha/locum/physical"
)

// checkLinearizable: clients on several nodes read, write, delete and swap a few entries; the history, checked
// with porcupine, must be one of registers that change at one instant within each call. That is what "current" means in
// Get's comment: "it reflects every Commit that returned before the call began, on whichever node". Where only one
// node at a time is promised that, all calls go to it.
func checkLinearizable(s *scene) {
	nodes := s.writers(4)
	if nodes[0].Caps().LocalReads {
		nodes = nodes[:1]
	}
	const clients = 8
	each := 60
	if testing.Short() {
		each = 20
	}
	log := registerLog{start: time.Now()}
	s.parallel(clients, func(ctx context.Context, client int) error {
		b := nodes[client%len(nodes)]
		for i := range each {
			if err := log.call(ctx, b, client, fmt.Sprintf("%d.%d", client, i)); err != nil {
				return fmt.Errorf("client %d: %w", client, err)
			}
		}
		return nil
	})
	if result := porcupine.CheckOperationsTimeout(registerModel(), log.history, time.Minute); result != porcupine.Ok {
		s.Errorf("the history of reads and commits is not linearizable: porcupine says %s", result)
	}
}

type registerKind uint8

const (
	registerGet registerKind = iota + 1
	registerPut
	registerSwap // from one value to another, where absent is a value too
)

// absent is the value of an entry that is not there. No client writes it.
const absent = "absent"

type registerInput struct {
	kind     registerKind
	key      string
	from, to string
}

type registerOutput struct {
	value   string // of get
	failed  bool   // swap: the condition did not hold
	unknown bool   // carried out at any time from the call on, or never
}

// registerLog collects the history.
type registerLog struct {
	start   time.Time
	mu      sync.Mutex
	history []porcupine.Operation
	seen    [3]string // the value last seen of each key, so that swaps have a chance
}

// call makes one random call, whose new value is fresh, and records it.
func (l *registerLog) call(ctx context.Context, b physical.Backend, client int, fresh string) error {
	n := rand.N(len(l.seen))
	l.mu.Lock()
	in := registerInput{key: fmt.Sprintf("register/%d", n), from: l.seen[n], to: fresh}
	l.mu.Unlock()
	if in.from == "" || rand.N(4) == 0 {
		in.from = absent
	}
	if rand.N(4) == 0 {
		in.to = absent
	}
	in.kind = registerKind(1 + rand.N(3))
	called := time.Since(l.start)
	out, err := in.carryOut(ctx, b)
	op := porcupine.Operation{ClientId: client, Input: in, Call: int64(called), Output: out, Return: int64(time.Since(l.start))}
	if out.unknown {
		op.Return = math.MaxInt64
	}
	if errors.Is(err, physical.ErrUnavailable) {
		return nil // not carried out
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = append(l.history, op)
	switch {
	case in.kind == registerGet:
		l.seen[n] = out.value
	case !out.failed:
		l.seen[n] = in.to
	}
	return nil
}

func (in registerInput) carryOut(ctx context.Context, b physical.Backend) (registerOutput, error) {
	if in.kind == registerGet {
		e, err := b.Get(ctx, in.key)
		if errors.Is(err, physical.ErrNotFound) {
			return registerOutput{value: absent}, nil
		}
		if err != nil {
			return registerOutput{}, err
		}
		return registerOutput{value: string(e.Value)}, nil
	}
	ops := []physical.Op{physical.Put(in.key, []byte(in.to))}
	if in.to == absent {
		ops[0] = physical.Delete(in.key)
	}
	if in.kind == registerSwap && in.from == absent {
		ops = append(ops, physical.RequireAbsent(in.key))
	} else if in.kind == registerSwap {
		ops = append(ops, physical.RequireValue(in.key, []byte(in.from)))
	}
	err := b.Commit(ctx, nil, ops...)
	switch {
	case errors.Is(err, physical.ErrUnknown):
		return registerOutput{unknown: true}, nil
	case errors.Is(err, physical.ErrConflict) && in.kind == registerSwap:
		return registerOutput{failed: true}, nil
	}
	return registerOutput{}, err
}

// registerModel is the sequential specification of one entry: its state is its value.
func registerModel() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := make(map[string][]porcupine.Operation)
			for _, op := range history {
				key := op.Input.(registerInput).key
				byKey[key] = append(byKey[key], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() []any { return []any{absent} },
		Step: func(state, input, output any) []any {
			return registerStep(state.(string), input.(registerInput), output.(registerOutput))
		},
	}
	return m.ToModel()
}

func registerStep(value string, in registerInput, out registerOutput) []any {
	holds := in.kind != registerSwap || value == in.from
	switch {
	case in.kind == registerGet && out.value == value:
		return []any{value}
	case in.kind == registerGet:
		return nil
	case out.unknown && holds:
		return []any{value, in.to}
	case out.unknown, out.failed && !holds:
		return []any{value}
	case !out.failed && holds:
		return []any{in.to}
	}
	return nil
}
