package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// clustered is a node's proposer among other hosts: it asks whatever member the node is now.
type clustered struct{ n *Node }

func (c clustered) member() (*member, error) {
	m := c.n.member.Load()
	if m == nil || c.n.view() == nil {
		return nil, fmt.Errorf("%w: %w", ErrNotDone, ErrNoQuorum)
	}
	return m, nil
}

func (c clustered) propose(ctx context.Context, level Level, r request) (response, error) {
	m, err := c.member()
	if err != nil {
		return response{}, err
	}
	if level == Direct {
		if !c.settled() { // it comes after what was acknowledged here: else it would give way to that
			if err := c.ownWrites(ctx); err != nil {
				return response{}, fmt.Errorf("%w: %w", ErrNotDone, err)
			}
		}
		return response{}, m.direct(r.ops[0])
	}
	if m.over.hides(level, &r) { // the caller's own put is the older one: it is decided first, or the log would have it the other way round
		if err := m.decided(ctx); err != nil && (ctx.Err() != nil || m.ctx.Err() != nil) { // one that was lost is told to who settles
			return response{}, fmt.Errorf("%w: direct puts are on their way: %w", ErrNotDone, cmp.Or(context.Cause(ctx), ErrNoQuorum))
		}
	}
	out := m.submit(ctx, level, r)
	if out.err == nil {
		m.ownWrite(out.index)
	}
	return out.resp, out.err
}

// ownWrite notes up to where own writes were acknowledged.
func (m *member) ownWrite(index uint64) {
	for {
		last := m.lastOwn.Load()
		if index <= last || m.lastOwn.CompareAndSwap(last, index) {
			return
		}
	}
}

// submit puts a request through the leader, whoever that is, and waits for one while there is none.
func (m *member) submit(ctx context.Context, level Level, r request) outcome {
	data := appendRequest(make([]byte, 0, r.size()), &r)
	if len(data) > maxTxn { // very many operations can be longer than they were taken for
		return outcome{err: fmt.Errorf("%w: a transaction of %d bytes, %d are possible; %w", ErrTooLarge, len(data), maxTxn, ErrNotDone)}
	}
	for {
		_, _, changed := m.leader.get()
		out := m.try(ctx, level, data)
		if errors.Is(out.err, ErrUnknown) || !errors.Is(out.err, errNotLeader) {
			return out
		}
		if err := m.pause(ctx, changed); err != nil {
			return outcome{err: fmt.Errorf("%w: %w", ErrNotDone, err)}
		}
	}
}

// pause waits until it may be worth to ask again.
func (m *member) pause(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(m.cfg.ElectionTimeout / 20)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("the cache has no leader now: %w", context.Cause(ctx))
	case <-m.ctx.Done():
		return ErrNoQuorum
	}
	if m.node.view() == nil {
		return ErrNoQuorum
	}
	return nil
}

// try asks the leader once.
func (m *member) try(ctx context.Context, level Level, data []byte) outcome {
	if l := m.lead.Load(); l != nil {
		p := &pending{data: data, level: level, done: make(chan outcome, 1)}
		l.submit(p)
		select {
		case out := <-p.done:
			return out
		case <-ctx.Done():
			if l.withdraw(p) {
				return outcome{err: fmt.Errorf("%w: %w", ErrNotDone, context.Cause(ctx))}
			}
			return m.gaveUp(ctx, p.done)
		}
	}
	link, err := m.toLeader(ctx)
	if err != nil {
		return outcome{err: err}
	}
	ch, forget, err := link.ask(askWrite, level, data)
	if err != nil {
		return outcome{err: err}
	}
	return m.await(ctx, ch, forget)
}

func (m *member) await(ctx context.Context, ch <-chan outcome, forget func()) outcome {
	select {
	case out := <-ch:
		return out
	case <-ctx.Done():
		forget()
		return m.gaveUp(ctx, ch)
	case <-m.ctx.Done():
		forget()
		return outcome{err: fmt.Errorf("%w: %w", ErrUnknown, ErrNoQuorum)}
	}
}

// gaveUp is the outcome of a request whose caller waits no longer.
func (m *member) gaveUp(ctx context.Context, ch <-chan outcome) outcome {
	select {
	case out := <-ch:
		return out
	default:
		return outcome{err: fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))}
	}
}

// toLeader returns the connection to the leader, a new one if need be. One caller at a time makes one, for whoever leads when it is its
// turn.
func (m *member) toLeader(ctx context.Context) (*leaderLink, error) {
	if id, _, _ := m.leader.get(); id == "" || id == m.id {
		return nil, errNotLeader
	} else if l := m.link.Load(); l != nil && l.leader == id && l.alive() {
		return l, nil
	}
	select {
	case m.linking <- struct{}{}:
	case <-ctx.Done():
		return nil, errNotLeader
	case <-m.ctx.Done():
		return nil, errNotLeader
	}
	defer func() { <-m.linking }()
	id, host, _ := m.leader.get()
	if id == "" || id == m.id || m.ctx.Err() != nil {
		return nil, errNotLeader
	}
	if l := m.link.Load(); l != nil {
		if l.leader == id && l.alive() {
			return l, nil
		}
		l.fail(errNewLeader)
		m.link.Store(nil)
	}
	conn, err := m.dialLeader(ctx, id, host)
	if err != nil {
		return nil, errNotLeader
	}
	l := &leaderLink{leader: id, conn: conn, waiting: map[uint64]chan outcome{}, work: &m.work}
	if !m.background(l.read) {
		l.fail(errStopping)
		return nil, errNotLeader
	}
	m.link.Store(l)
	if m.ctx.Err() != nil { // who ends the member may have looked before
		l.fail(errStopping)
	}
	return l, nil
}

var errNewLeader = errors.New("there is a new leader")

// dialLeader connects to the leader, for as long as it is: one whose host is gone does not even refuse.
func (m *member) dialLeader(ctx context.Context, id, host string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.ElectionTimeout, errTimeout)
	defer cancel()
	watched := m.background(func() {
		for {
			leader, _, changed := m.leader.get()
			if leader != id {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	if !watched {
		return nil, errStopping
	}
	return m.trans.dialer.dial(ctx, host, hello{purpose: forWrites, cluster: m.cluster, from: m.id, to: id, host: m.cfg.Self})
}

// forsake ends the connection to a leader that another has followed: one that is frozen answers nothing, and does not hang up.
func (m *member) forsake(leader string) {
	if l := m.link.Load(); l != nil && leader != "" && l.leader != leader {
		l.fail(errNewLeader)
	}
}

// confirm returns when a read on this node is linearizable.
func (c clustered) confirm(ctx context.Context) error {
	m, err := c.member()
	if err != nil {
		return ErrNoQuorum
	}
	for {
		_, _, changed := m.leader.get()
		index, err := m.readIndex(ctx)
		if err == nil {
			return m.reached(ctx, index)
		}
		if err := m.pause(ctx, changed); err != nil {
			return err
		}
	}
}

func (m *member) readIndex(ctx context.Context) (uint64, error) {
	if l := m.lead.Load(); l != nil {
		return l.readIndex(ctx)
	}
	link, err := m.toLeader(ctx)
	if err != nil {
		return 0, err
	}
	ch, forget, err := link.ask(askRead, 0, nil)
	if err != nil {
		return 0, err
	}
	out := m.await(ctx, ch, forget)
	return out.index, out.err
}

// reached waits until the log is applied here up to index.
func (m *member) reached(ctx context.Context, index uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.ctx, func() { cancel(ErrNoQuorum) })()
	return m.fsm.progress.wait(ctx, index)
}

func (c clustered) settled() bool {
	m, err := c.member()
	return err == nil && m.fsm.progress.at.Load() >= m.lastOwn.Load()
}

// ownWrites returns when everything that was acknowledged through this node is applied here. What was lost
// with a leader never is: after an election timeout a confirmation takes the place of waiting, and of the next reads' waiting, too.
func (c clustered) ownWrites(ctx context.Context) error {
	m, err := c.member()
	if err != nil {
		return ErrNoQuorum
	}
	last := m.lastOwn.Load()
	if m.fsm.progress.at.Load() >= last {
		return nil
	}
	if m.lostOwn.Load() == last {
		return c.confirm(ctx)
	}
	short, cancel := context.WithTimeoutCause(ctx, m.cfg.ElectionTimeout, errTimeout)
	defer cancel()
	if m.reached(short, last) == nil {
		return nil
	}
	if err := c.confirm(ctx); err != nil {
		return err
	}
	m.lostOwn.Store(last) // not lastOwn: a later write of the new leader's may be below it
	return nil
}

// decided returns when the log has decided the direct puts that are there now.
func (c clustered) decided(ctx context.Context) error {
	m, err := c.member()
	if err != nil {
		return ErrNoQuorum
	}
	return m.decided(ctx)
}

func (m *member) decided(ctx context.Context) error {
	for s := m.over.await(); s != nil; s = s.prev {
		select {
		case <-s.done:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
		case <-m.ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnknown, ErrNoQuorum)
		}
		if s.lost != nil {
			return fmt.Errorf("%w: a direct put: %v", ErrUnknown, s.lost)
		}
	}
	return nil
}
