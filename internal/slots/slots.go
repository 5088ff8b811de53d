// Package slots lets one of Locum's own writes be repeated after an unclear outcome and still be carried out once (P6).
//
// The node at which a request arrived gives it an id and a slot, "<node id>/<incarnation>/<n>". Whoever carries the
// write out commits its answer in the slot, in the same commit as its data. A repeat reads the slot first: if it holds
// the same id, the write was carried out, and the stored answer is given again. A slot is used anew, by another
// request, only after the one before got a definite answer; so nothing has to be collected beyond the slots in use.
//
// A writer may keep the answer with its data instead ([Request.Number]), and look there before it calls Answered. Before such a
// record goes, with the data that it lies with, it is put into the slot ([Keeper.Keep]), unless it is known that nobody can ask
// for it any more ([Keeper.Over]): as soon as a slot is used by a later request, those before have their definite answers.
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
//
// The numbers of a slot's requests rise, so "later" is a comparison: of what the Keeper has seen arrive, or has read. It forgets
// some (P12), and a new leadership begins with nothing; then the slot's entry is read. What is put there is conditioned on
// what was read, so that it cannot displace what a later request has put there.
package slots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// Prefix is where slots lie in the store.
const Prefix = "core/request/"

const (
	format     = 1
	remembered = 16384 // repeats, and slots, oldest given up first
	base       = 36    // of the numbers that are ids
)

// ErrNewerFormat: the slot was written by a newer version of Locum.
var ErrNewerFormat = errors.New("newer format")

// Request says which request a write belongs to. The zero Request is one that is never repeated.
type Request struct {
	// ID is the same in every attempt, and no other request's of the slot ever: not what a client chose. If it is a number in base 36, as
	// package forward makes them, those of later requests in the same slot are higher.
	ID     string
	Slot   string // where its answer is kept; "" if it is never repeated
	Repeat bool   // an earlier attempt may have been carried out
}

// Reader is what a Keeper needs of the store in plain.
type Reader interface {
	Get(ctx context.Context, key string) (*physical.Entry, error)
}

// Number is the request's id as a number; false if it has none, or no slot.
func (r Request) Number() (uint64, bool) {
	if r.Slot == "" {
		return 0, false
	}
	return number(r.ID)
}

func number(id string) (uint64, bool) {
	n, err := strconv.ParseUint(id, base, 64)
	return n, err == nil && (id[0] != '0' || len(id) == 1) && strings.ToLower(id) == id
}

// Keeper recognises requests that were carried out before. One serves all writers of a leadership.
type Keeper struct {
	store Reader

	mu     sync.Mutex
	repeat ring[attempt, struct{}]
	latest ring[string, uint64] // by slot, the highest number seen
}

// attempt is what all attempts of a request have in common.
type attempt struct{ slot, id string }

// NewKeeper makes a keeper over a store.
func NewKeeper(store Reader) *Keeper {
	return &Keeper{store: store}
}

type stored struct {
	Format int             `json:"format"`
	ID     string          `json:"id"`
	Answer json.RawMessage `json:"answer"`
}

// Answered reports whether the request was carried out before, and decodes its answer then (into nil: ignores it). It
// costs a read for repeats, and nothing for others.
func (k *Keeper) Answered(ctx context.Context, r Request, answer any) (bool, error) {
	if !k.Repeated(r) {
		return false, nil
	}
	_, s, err := k.read(ctx, r.Slot)
	switch {
	case err != nil:
		return false, err
	case s == nil || s.ID != r.ID:
		return false, overtaken(r)
	case answer == nil:
		return true, nil
	}
	if err := json.Unmarshal(s.Answer, answer); err != nil {
		return false, fmt.Errorf("request slot %q: %w", r.Slot, err)
	}
	return true, nil
}

// read returns what a slot holds, as it is stored and decoded; nil if nothing.
func (k *Keeper) read(ctx context.Context, slot string) ([]byte, *stored, error) {
	e, err := k.store.Get(ctx, Prefix+slot)
	if errors.Is(err, physical.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("request slot: %w", err)
	}
	var s stored
	if err := json.Unmarshal(e.Value, &s); err != nil {
		return nil, nil, fmt.Errorf("request slot %q: %w", slot, err)
	}
	if s.Format > format {
		return nil, nil, fmt.Errorf("request slot %q: %w: format %d, this build knows %d", slot, ErrNewerFormat, s.Format, format)
	}
	return e.Value, &s, nil
}

// overtaken refuses a first attempt that arrives after its own repeat: nobody waits for its answer any more, and what
// the repeat did must not be done twice. A repeat that finds no answer goes on.
func overtaken(r Request) error {
	if r.Repeat {
		return nil
	}
	return fmt.Errorf("request overtaken by its repeat: %w", physical.ErrUnknown)
}

// Repeated reports whether the request may have been carried out before, and remembers it if it is a repeat.
func (k *Keeper) Repeated(r Request) bool {
	if r.Slot == "" {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a := attempt{r.Slot, r.ID}
	_, seen := k.repeat.m[a]
	if r.Repeat && !seen {
		k.repeat.set(a, struct{}{})
	}
	return seen || r.Repeat
}

// Arrived notes that there is such a request: it is a repeat, perhaps, and those that used its slot before it are over.
func (k *Keeper) Arrived(r Request) {
	if n, ok := r.Number(); ok {
		k.Saw(r.Slot, n)
	}
	k.Repeated(r)
}

// Saw notes that there has been a request of this number.
func (k *Keeper) Saw(slot string, number uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n, known := k.latest.m[slot]; !known || n < number {
		k.latest.set(slot, number)
	}
}

// Over reports whether a request is known to be over, since a later one has used its slot: nobody will repeat it.
func (k *Keeper) Over(slot string, number uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.latest.m[slot] > number
}

// Keep gives the ops that put into its slot what a request was answered, for a repeat; none if the slot turns out to have been used
// later. They are of the commit that removes the record which the writer has kept of it until now.
func (k *Keeper) Keep(ctx context.Context, slot string, n uint64, answer any) ([]physical.Op, error) {
	raw, s, err := k.read(ctx, slot)
	if err != nil {
		return nil, err
	}
	condition := physical.RequireAbsent(Prefix + slot)
	if s != nil {
		last, ok := number(s.ID)
		if !ok {
			return nil, fmt.Errorf("request slot %q: its id %q is no number", slot, s.ID)
		}
		if k.Saw(slot, last); last > n {
			return nil, nil
		}
		condition = physical.RequireValue(Prefix+slot, raw)
	}
	return Request{ID: strconv.FormatUint(n, base), Slot: slot}.Append([]physical.Op{condition}, answer)
}

// ring is a map of at most so many as are remembered: the keys that came first are given up first.
type ring[K comparable, V any] struct {
	m     map[K]V
	order []K // a ring, once full
	next  int
}

func (r *ring[K, V]) set(key K, value V) {
	if r.m == nil {
		r.m = map[K]V{}
	}
	_, known := r.m[key]
	switch {
	case known:
	case len(r.order) < remembered:
		r.order = append(r.order, key)
	default:
		delete(r.m, r.order[r.next])
		r.order[r.next] = key
		r.next = (r.next + 1) % remembered
	}
	r.m[key] = value
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
