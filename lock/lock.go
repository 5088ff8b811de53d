package lock

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// What a call can be refused for, besides the store's own errors.
var (
	// ErrHeld: somebody else holds the lock; a *HeldError says who.
	ErrHeld = errors.New("lock is held")
	// ErrLost: the caller does not hold the lock, or does not any more.
	ErrLost = errors.New("lock is not held by the caller")
	// ErrDraining: the node steps down; the wait goes on at the next active node.
	ErrDraining = errors.New("the active node steps down")
	// ErrTooMany: so many locks are in use that no other is taken.
	ErrTooMany = errors.New("too many locks in use")
	// ErrNewerFormat: the lock was written by a newer version of Locum.
	ErrNewerFormat = errors.New("newer format")
)

// HeldError is ErrHeld with the holder.
type HeldError struct{ State State }

func (e *HeldError) Error() string {
	return fmt.Sprintf("lock %q is held by %q, with number %d", e.State.Name, e.State.Holder, e.State.Number)
}

// Is makes errors.Is(err, ErrHeld) true.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// Limits of a request.
const (
	MaxName    = 512                    // bytes
	MaxHolder  = 256                    // bytes
	MinSecret  = 16                     // bytes
	MaxSecret  = 256                    // bytes
	MinTTL     = 100 * time.Millisecond // below it a holder could hardly renew in time
	MaxTTL     = 24 * time.Hour
	DefaultTTL = 10 * time.Second
)

// Store keeps the locks, in plain: package barrier's View.
type Store interface {
	Get(ctx context.Context, key string) (*physical.Entry, error)
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)
	Commit(ctx context.Context, ops ...physical.Op) error
}

// Config of a Manager. The zero value is good.
type Config struct {
	MaxLocks int           // in use at a time. Default 65 536
	Keep     time.Duration // how long a lock that nobody holds is remembered by itself. Default 1 h

	Clock    func() boottime.Instant // default: boottime.Now
	Logger   *slog.Logger            // default: discard
	Observer Observer
}

// Observer is told of events. Every field may be nil. The functions must return at once.
type Observer struct {
	Acquired func(waited time.Duration) // the lock changed hands
	Refused  func()                     // because another holds it
	Expired  func()                     // taken from a holder that did not renew
}

// Request is what Acquire is asked for.
type Request struct {
	Name   string        // a path as an entry's key, MaxName at the most
	Holder string        // who asks, for people; MaxHolder at the most
	Secret string        // proves later that it is the same caller: random, MinSecret to MaxSecret bytes
	TTL    time.Duration // MinTTL to MaxTTL. Default: DefaultTTL
	Wait   time.Duration // for how long to wait while another holds it. Default: not at all
}

// Grant is a lock that is held.
type Grant struct {
	Name   string
	Holder string
	Number uint64        // higher than that of every holder before
	TTL    time.Duration // from the instant before the request was sent
}

// State is a lock as anybody may see it.
type State struct {
	Name   string
	Held   bool
	Holder string        // the last one, if it is not held
	Number uint64        // of the holder, or of the last one; 0: it was never held
	TTL    time.Duration // as the holder asked for
	Left   time.Duration // until it runs out, unless it is renewed
	Since  time.Time     // when it was acquired, on the clock of the active node of that time
}

// Manager keeps the locks of one leadership. It may be used concurrently.
type Manager struct {
	cfg   Config
	store Store
	start boottime.Instant // all renewals of earlier terms came before

	mu       sync.Mutex
	open     map[string]*entry
	floor    *floor // nil until it was read
	draining chan struct{}
	drained  bool

	sweeping chan struct{} // one sweep at a time
}

// entry is a lock that somebody uses, or holds.
type entry struct {
	name string
	turn chan struct{} // who has it may change what follows
	uses int           // under Manager.mu

	loaded   bool
	again    bool // it was loaded before, in this term
	raw      []byte
	record   record
	deadline boottime.Instant
	changed  chan struct{} // closed when it may be free, and made anew
}

// New makes the locks of a leadership. Call it after the term's fence was raised.
func New(store Store, cfg Config) *Manager {
	if cfg.MaxLocks == 0 {
		cfg.MaxLocks = 1 << 16
	}
	if cfg.Keep == 0 {
		cfg.Keep = time.Hour
	}
	if cfg.Clock == nil {
		cfg.Clock = boottime.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{cfg: cfg, store: store, start: cfg.Clock(), open: map[string]*entry{}, draining: make(chan struct{}), sweeping: make(chan struct{}, 1)}
}

// Drain ends all waits with ErrDraining. What does not wait goes on.
func (m *Manager) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.drained {
		m.drained = true
		close(m.draining)
	}
}

func (r *Request) check() error {
	if r.TTL == 0 {
		r.TTL = DefaultTTL
	}
	switch {
	case checkName(r.Name) != nil:
		return checkName(r.Name)
	case len(r.Holder) > MaxHolder || !utf8.ValidString(r.Holder):
		return fmt.Errorf("%w: a holder is text of %d bytes at the most", physical.ErrInvalid, MaxHolder)
	case len(r.Secret) < MinSecret || len(r.Secret) > MaxSecret:
		return fmt.Errorf("%w: the secret has %d bytes: make a random one of %d to %d", physical.ErrInvalid, len(r.Secret), MinSecret, MaxSecret)
	case r.TTL < MinTTL || r.TTL > MaxTTL:
		return fmt.Errorf("%w: a TTL of %s: it may be from %s to %s", physical.ErrInvalid, r.TTL, MinTTL, MaxTTL)
	case r.Wait < 0:
		return fmt.Errorf("%w: a negative wait", physical.ErrInvalid)
	}
	return nil
}

func checkName(name string) error {
	if len(name) > MaxName {
		return fmt.Errorf("%w: the lock's name has %d bytes, of %d", physical.ErrInvalid, len(name), MaxName)
	}
	if err := physical.CheckKey(name); err != nil {
		return fmt.Errorf("the lock's name: %w", err)
	}
	return nil
}

// Acquire takes the lock, and waits for it if that was asked for: [*HeldError], [ErrDraining], [ErrTooMany],
// physical.ErrInvalid, or the store's error. After physical.ErrUnknown the same request may be made again: who holds the
// lock already, under this secret, gets its grant with the same number, and its TTL begins anew.
func (m *Manager) Acquire(ctx context.Context, r Request) (Grant, error) {
	if err := r.check(); err != nil {
		return Grant{}, err
	}
	e, err := m.use(r.Name)
	if err != nil {
		return Grant{}, err
	}
	defer m.leave(e)
	begun := m.cfg.Clock()
	for {
		grant, changed, err := m.try(ctx, e, r, begun)
		var held *HeldError
		if !errors.As(err, &held) {
			return grant, err
		}
		left := r.Wait - m.cfg.Clock().Sub(begun)
		if left <= 0 {
			if m.cfg.Observer.Refused != nil {
				m.cfg.Observer.Refused()
			}
			return Grant{}, err
		}
		if err := m.await(ctx, changed, min(left, held.State.Left)); err != nil {
			return Grant{}, err
		}
	}
}

// recheck bounds how long a timer is believed: Go's stand still while the machine is suspended.
const recheck = time.Second

func (m *Manager) await(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(max(min(d, recheck), time.Millisecond))
	defer timer.Stop()
	select {
	case <-m.draining:
		return ErrDraining
	case <-ctx.Done():
		return fmt.Errorf("waiting for a lock: %w", context.Cause(ctx))
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// try makes one attempt. On ErrHeld it returns what is closed when the next one makes sense.
func (m *Manager) try(ctx context.Context, e *entry, r Request, begun boottime.Instant) (Grant, <-chan struct{}, error) {
	if err := m.enter(ctx, e); err != nil {
		return Grant{}, nil, err
	}
	defer func() { <-e.turn }()
	now := m.cfg.Clock()
	held := e.record.held() && now.Before(e.deadline)
	expired := e.record.held() && !held
	switch {
	case held && !e.record.madeBy(r.Secret):
		return Grant{}, e.changed, &HeldError{State: m.state(e)}
	case held && e.record.TTL == r.TTL:
		e.deadline = now.Add(r.TTL)
		return e.grant(), nil, nil
	}
	next := record{Format: format, Number: e.record.Number, Holder: r.Holder, Secret: hashOf(r.Secret), TTL: r.TTL, Since: time.Now().UnixNano()}
	if !held {
		floor, err := m.readFloor(ctx)
		if err != nil {
			return Grant{}, nil, err
		}
		next.Number = max(e.record.Number, floor.number) + 1
	}
	if err := m.write(ctx, e, next); err != nil {
		return Grant{}, nil, err
	}
	e.deadline = m.cfg.Clock().Add(r.TTL)
	if expired && m.cfg.Observer.Expired != nil {
		m.cfg.Observer.Expired()
	}
	if m.cfg.Observer.Acquired != nil {
		m.cfg.Observer.Acquired(now.Sub(begun))
	}
	return e.grant(), nil, nil
}

func (e *entry) grant() Grant {
	return Grant{Name: e.name, Holder: e.record.Holder, Number: e.record.Number, TTL: e.record.TTL}
}

// Renew extends the lock by its TTL from now, or returns ErrLost.
func (m *Manager) Renew(ctx context.Context, name, secret string) (Grant, error) {
	if err := checkName(name); err != nil {
		return Grant{}, err
	}
	e, err := m.use(name)
	if err != nil {
		return Grant{}, err
	}
	defer m.leave(e)
	if err := m.enter(ctx, e); err != nil {
		return Grant{}, err
	}
	defer func() { <-e.turn }()
	now := m.cfg.Clock()
	if !e.record.held() || !e.record.madeBy(secret) || !now.Before(e.deadline) {
		return Grant{}, fmt.Errorf("lock %q: %w", name, ErrLost)
	}
	e.deadline = now.Add(e.record.TTL)
	return e.grant(), nil
}

// Release gives the lock up. It does nothing if the caller does not hold it.
func (m *Manager) Release(ctx context.Context, name, secret string) error {
	return m.release(ctx, name, func(r record) bool { return r.madeBy(secret) })
}

// Break takes the lock from whoever holds it. The holder learns of it when it renews.
func (m *Manager) Break(ctx context.Context, name string) error {
	return m.release(ctx, name, func(record) bool { return true })
}

func (m *Manager) release(ctx context.Context, name string, may func(record) bool) error {
	if err := checkName(name); err != nil {
		return err
	}
	e, err := m.use(name)
	if err != nil {
		return err
	}
	defer m.leave(e)
	if err := m.enter(ctx, e); err != nil {
		return err
	}
	defer func() { <-e.turn }()
	if !e.record.held() || !may(e.record) {
		return nil
	}
	next := e.record
	next.Secret, next.Since = "", time.Now().UnixNano()
	if err := m.write(ctx, e, next); err != nil {
		return err
	}
	e.wake()
	return nil
}

// Get tells who holds the lock.
func (m *Manager) Get(ctx context.Context, name string) (State, error) {
	if err := checkName(name); err != nil {
		return State{}, err
	}
	e, err := m.use(name)
	if err != nil {
		return State{}, err
	}
	defer m.leave(e)
	if err := m.enter(ctx, e); err != nil {
		return State{}, err
	}
	defer func() { <-e.turn }()
	return m.state(e), nil
}

// state describes the lock; its turn is the caller's.
func (m *Manager) state(e *entry) State {
	s := State{Name: e.name, Holder: e.record.Holder, Number: e.record.Number, TTL: e.record.TTL}
	if e.record.Since != 0 {
		s.Since = time.Unix(0, e.record.Since)
	}
	if left := e.deadline.Sub(m.cfg.Clock()); e.record.held() && left > 0 {
		s.Held, s.Left = true, left
	}
	return s
}

// use finds the lock, or makes room for it.
func (m *Manager) use(name string) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.open[name]
	if e == nil {
		if len(m.open) >= m.cfg.MaxLocks {
			return nil, fmt.Errorf("%w: %d", ErrTooMany, len(m.open))
		}
		e = &entry{name: name, turn: make(chan struct{}, 1), changed: make(chan struct{})}
		m.open[name] = e
	}
	e.uses++
	return e, nil
}

// leave forgets the lock if nobody uses or holds it, or may hold it.
func (m *Manager) leave(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.uses--
	if free := e.loaded && !e.record.held(); e.uses == 0 && (free || !e.again) {
		delete(m.open, e.name)
	}
}

// enter takes the lock's turn and reads what is stored of it, if that is not known.
func (m *Manager) enter(ctx context.Context, e *entry) error {
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %v while another request for this lock was under way", physical.ErrUnavailable, context.Cause(ctx))
	}
	if e.loaded {
		return nil
	}
	if err := m.load(ctx, e); err != nil {
		<-e.turn
		return err
	}
	return nil
}

// wake lets those who wait try again.
func (e *entry) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func (r record) held() bool { return r.Secret != "" }

func (r record) madeBy(secret string) bool {
	return r.held() && subtle.ConstantTimeCompare([]byte(r.Secret), []byte(hashOf(secret))) == 1
}
