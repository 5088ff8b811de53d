// Package slots lets one of Locum's own writes be repeated after an unclear outcome and still be carried out once (P6).
//
// The node at which a request arrived gives it an id and a slot, "<node id>/<incarnation>/<n>". Whoever carries the
// write out commits its answer in the slot, in the same commit as its data. A repeat reads the slot first: if it holds
// the same id, the write was carried out, and the stored answer is given again. A slot is used anew, by another
// request, only after the one before got a definite answer; so nothing has to be collected beyond the slots in use.
//
// # Design
//
// Between two nodes the fence keeps attempts apart: once the next active node reads the slot, the last one's attempt is
// either in it or refused for ever. On one node two attempts can run side by side, when the connection that brought
// the first broke and the request came again, and a store can carry an attempt out late. The writer must see to three
// things: under a lock that all attempts need it reads the state, then calls Answered, then commits on condition that the
// state is what it read. So of two attempts one fails and looks again; with Answered before the state an attempt could land
// in between and be missed. A first attempt that comes to the lock only after its own repeat is recognised by its id, which
// the Keeper remembers of every repeat.
package slots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// Prefix is where slots lie in the store.
const Prefix = "core/request/"

const (
	format     = 1
	remembered = 16384 // ids of repeats kept, oldest given up first
)

// ErrNewerFormat: the slot was written by a newer version of Locum.
var ErrNewerFormat = errors.New("newer format")

// Request says which request a write belongs to. The zero Request is one that is never repeated.
type Request struct {
	ID     string // the same in every attempt, and no other request's ever: not what a client chose
	Slot   string // where its answer is kept; "" if it is never repeated
	Repeat bool   // an earlier attempt may have been carried out
}

// Reader is what a Keeper needs of the store in plain.
type Reader interface {
	Get(ctx context.Context, key string) (*physical.Entry, error)
}

// Keeper recognises requests that were carried out before. One serves all writers of a leadership.
type Keeper struct {
	store Reader

	mu     sync.Mutex
	repeat map[string]struct{}
	order  []string // a ring, once full
	next   int
}

// NewKeeper makes a keeper over a store.
func NewKeeper(store Reader) *Keeper {
	return &Keeper{store: store, repeat: map[string]struct{}{}}
}

type stored struct {
	Format int             `json:"format"`
	ID     string          `json:"id"`
	Answer json.RawMessage `json:"answer"`
}

// Answered reports whether the request was carried out before, and decodes its answer then (into nil: ignores it). It
// costs a read for repeats, and nothing for others.
func (k *Keeper) Answered(ctx context.Context, r Request, answer any) (bool, error) {
	if r.Slot == "" || !k.again(r) {
		return false, nil
	}
	e, err := k.store.Get(ctx, Prefix+r.Slot)
	if errors.Is(err, physical.ErrNotFound) {
		return false, overtaken(r)
	}
	if err != nil {
		return false, fmt.Errorf("request slot: %w", err)
	}
	var s stored
	if err := json.Unmarshal(e.Value, &s); err != nil {
		return false, fmt.Errorf("request slot %q: %w", r.Slot, err)
	}
	if s.Format > format {
		return false, fmt.Errorf("request slot %q: %w: format %d, this build knows %d", r.Slot, ErrNewerFormat, s.Format, format)
	}
	if s.ID != r.ID {
		return false, overtaken(r)
	}
	if answer == nil {
		return true, nil
	}
	if err := json.Unmarshal(s.Answer, answer); err != nil {
		return false, fmt.Errorf("request slot %q: %w", r.Slot, err)
	}
	return true, nil
}

// overtaken refuses a first attempt that arrives after its own repeat: nobody waits for its answer any more, and what
// the repeat did must not be done twice. A repeat that finds no answer goes on.
func overtaken(r Request) error {
	if r.Repeat {
		return nil
	}
	return fmt.Errorf("request overtaken by its repeat: %w", physical.ErrUnknown)
}

// again reports whether the request may have been carried out before, and remembers it if it is a repeat.
func (k *Keeper) again(r Request) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, seen := k.repeat[r.ID]
	if !r.Repeat || seen {
		return seen
	}
	k.repeat[r.ID] = struct{}{}
	if len(k.order) < remembered {
		k.order = append(k.order, r.ID)
		return true
	}
	delete(k.repeat, k.order[k.next])
	k.order[k.next] = r.ID
	k.next = (k.next + 1) % remembered
	return true
}

// appender is an answer that encodes itself, without the price of encoding/json's second look.
type appender interface {
	AppendJSON(b []byte) []byte
}

// Append adds the op that keeps the answer to those of the request's commit; none if the request is never repeated.
func (r Request) Append(ops []physical.Op, answer any) ([]physical.Op, error) {
	if r.Slot == "" {
		return ops, nil
	}
	id, err := json.Marshal(r.ID)
	if err != nil {
		return nil, fmt.Errorf("request slot: %w", err)
	}
	value := append(fmt.Appendf(make([]byte, 0, 256), `{"format":%d,"id":`, format), id...)
	value = append(value, `,"answer":`...)
	if a, ok := answer.(appender); ok {
		value = a.AppendJSON(value)
	} else {
		encoded, err := json.Marshal(answer)
		if err != nil {
			return nil, fmt.Errorf("request slot: %w", err)
		}
		value = append(value, encoded...)
	}
	value = append(value, '}')
	return append(ops, physical.Put(Prefix+r.Slot, value)), nil
}
