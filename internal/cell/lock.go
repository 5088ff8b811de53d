package cell

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Lock is the HA lock on a cell. With Caps it is a physical.HABackend.
type Lock struct {
	cell  Cell
	clock func() boottime.Instant

	life context.Context
	end  context.CancelCauseFunc

	mu   sync.Mutex
	seen sighting
	mine map[string]boottime.Instant // by nonce: until when this process holds it, by the lease's rule
}

// sighting is since when the present version is known to be unchanged.
type sighting struct {
	version string
	since   boottime.Instant
	ttl     time.Duration // of the grant in it
}

// NewLock makes the lock on a cell. The clock is boottime.Now unless one is given.
func NewLock(c Cell, clock func() boottime.Instant) *Lock {
	if clock == nil {
		clock = boottime.Now
	}
	l := &Lock{cell: c, clock: clock, mine: map[string]boottime.Instant{}}
	l.life, l.end = context.WithCancelCause(context.Background())
	return l
}

// Close ends all calls with ErrClosed. A lock that is held is left to run out.
func (l *Lock) Close() error {
	l.end(physical.ErrClosed)
	return nil
}

// enter begins a method: its context ends with the store too. The method returns leave's error.
func (l *Lock) enter(ctx context.Context) (_ context.Context, leave func(error) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.life, func() { cancel(physical.ErrClosed) })
	if l.life.Err() != nil {
		cancel(physical.ErrClosed)
	}
	return ctx, func(err error) error {
		stop()
		cancel(nil)
		if err != nil && l.life.Err() != nil && !errors.Is(err, physical.ErrUnknown) {
			return physical.ErrClosed
		}
		return err
	}
}

// look reads the value, and says whether its holder's time is over: unchanged for a full TTL while this process watched.
func (l *Lock) look(ctx context.Context) (v value, version string, over bool, err error) {
	if err := context.Cause(ctx); err != nil {
		return value{}, "", false, err
	}
	sent := l.clock()
	data, version, err := l.cell.Read(ctx)
	if err != nil {
		return value{}, "", false, err
	}
	if v, err = parse(data, version); err != nil {
		return v, "", false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen.version != version {
		l.seen = sighting{version: version, since: l.clock(), ttl: v.TTL}
	}
	return v, version, v.held() && sent.Sub(l.seen.since) >= v.TTL, nil
}

// Acquire makes one attempt to take the lock.
func (l *Lock) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	ctx, leave := l.enter(ctx)
	g, err := l.acquire(ctx, r, ttl, above)
	return g, leave(err)
}

func (l *Lock) acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	if r.Holder == "" || ttl <= 0 {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v", physical.ErrInvalid, r.Holder, ttl)
	}
	v, version, over, err := l.look(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	if v.held() && !over {
		return physical.Grant{}, &physical.HeldError{Record: v.Record}
	}
	nonce := make([]byte, 16)
	rand.Read(nonce)
	next := value{
		Format: format, TTL: ttl, Nonce: nonce,
		Record: physical.Record{Holder: r.Holder, Name: r.Name, Term: max(v.Record.Term, above) + 1},
	}
	before := l.clock()
	if err := l.swap(ctx, next, version); err != nil {
		if errors.Is(err, ErrChanged) {
			return physical.Grant{}, l.beaten(ctx)
		}
		return physical.Grant{}, err
	}
	l.mu.Lock()
	clear(l.mine) // no grant of before can be of the value that is there now
	l.mu.Unlock()
	l.own(nonce, before.Add(ttl))
	return physical.Grant{Record: next.Record, TTL: ttl, Token: nonce}, nil
}

// beaten is the error of an Acquire that came second.
func (l *Lock) beaten(ctx context.Context) error {
	v, _, _, err := l.look(ctx)
	if err == nil && v.held() {
		return &physical.HeldError{Record: v.Record}
	}
	return fmt.Errorf("%w: another attempt on the lock came first", physical.ErrUnavailable)
}

func (l *Lock) swap(ctx context.Context, v value, version string) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return l.cell.Swap(ctx, data, version)
}

func (l *Lock) own(nonce []byte, until boottime.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mine[string(nonce)] = until
}

func (l *Lock) disown(g physical.Grant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mine, string(g.Token))
}

// rewrites bounds how often a write is made again because an earlier one of the same grant, without an answer, came first.
const rewrites = 3

// rewrite replaces the value of the grant g by what change makes of it; false if the grant is not in force.
func (l *Lock) rewrite(ctx context.Context, g physical.Grant, change func(value) value) (ok bool, err error) {
	for range rewrites {
		v, version, _, err := l.look(ctx)
		if err != nil || !v.is(g) {
			return false, err
		}
		if err = l.swap(ctx, change(v), version); !errors.Is(err, ErrChanged) {
			return err == nil, err
		}
	}
	return false, fmt.Errorf("%w: the lock changes all the time", physical.ErrUnavailable)
}

// Renew extends the grant by its TTL.
func (l *Lock) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	ctx, leave := l.enter(ctx)
	err := l.renew(ctx, g)
	return g, leave(err)
}

func (l *Lock) renew(ctx context.Context, g physical.Grant) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	until, known := l.mine[string(g.Token)]
	l.mu.Unlock()
	before := l.clock()
	if known && !before.Before(until) {
		return fmt.Errorf("%w: it ran out", physical.ErrLost)
	}
	ok, err := l.rewrite(ctx, g, func(v value) value {
		v.Beat++
		return v
	})
	if err != nil {
		return err
	}
	if !ok {
		l.disown(g)
		return physical.ErrLost
	}
	l.own(g.Token, before.Add(g.TTL))
	return nil
}

// Release gives the lock up.
func (l *Lock) Release(ctx context.Context, g physical.Grant, next string) error {
	ctx, leave := l.enter(ctx)
	_, err := l.rewrite(ctx, g, func(v value) value {
		return value{Format: format, TTL: v.TTL, Beat: v.Beat + 1, Record: physical.Record{Term: v.Record.Term, Next: next}}
	})
	if err == nil {
		l.disown(g)
	}
	return leave(err)
}

// Holder returns the record of the lock.
func (l *Lock) Holder(ctx context.Context) (physical.Record, error) {
	ctx, leave := l.enter(ctx)
	v, _, over, err := l.look(ctx)
	if err != nil {
		return physical.Record{}, leave(err)
	}
	if over || !v.held() {
		return v.free(), leave(physical.ErrNoHolder)
	}
	return v.Record, leave(nil)
}

// free is the record of a lock that nobody holds.
func (v value) free() physical.Record {
	return physical.Record{Term: v.Record.Term, Next: v.Record.Next}
}
