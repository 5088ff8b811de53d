package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	hraft "github.com/hashicorp/raft"
)

// begin starts the leadership of a term.
func (m *member) begin(term uint64) *lead {
	l := &lead{m: m, term: term, began: now(), pulses: map[string]context.CancelFunc{}, wake: make(chan struct{}), flying: make(chan *flight, 64)}
	l.more.L = &l.mu
	l.ctx, l.cancel = context.WithCancelCause(m.ctx)
	m.fsm.mu.Lock()
	l.base = max(m.fsm.st.clock.Load(), m.fsm.st.ahead.Load()+now()/int64(time.Millisecond))
	m.fsm.mu.Unlock()
	m.book.begin(term, l.early.acked)
	m.book.members(m.config())
	m.lead.Store(l)
	l.alarm = time.AfterFunc(time.Hour, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.more.Signal()
	})
	l.work.Go(l.lane)
	l.work.Go(l.watch)
	l.work.Go(l.declare)
	l.work.Go(l.keep)
	m.node.elections.Add(1)
	m.cfg.Logger.Info("this node leads the cache", "term", term)
	if tell := m.cfg.Observer.Elected; tell != nil {
		tell(term)
	}
	return l
}

// end ends the leadership and waits for all that it does.
func (l *lead) end() {
	l.m.lead.CompareAndSwap(l, nil)
	l.open.Store(false)
	l.cancel(errNotLeader)
	l.stop()
	l.alarm.Stop()
	l.work.Wait()
	l.m.cfg.Logger.Info("this node leads the cache no more", "term", l.term)
}

func (m *member) config() hraft.Configuration { return m.raft.GetConfiguration().Configuration() }

// declare puts this node's options into the log, which also settles what the log had before this term.
func (l *lead) declare() {
	d := declaration{Caches: l.m.cfg.Caches, Default: l.m.cfg.Default, Hosts: l.m.hostList(), Base: versionBase()}
	content, err := json.Marshal(d)
	if err != nil {
		l.m.cfg.Logger.Error("the cache's options cannot be declared", "error", err)
		return
	}
	for l.ctx.Err() == nil {
		index, err := l.command(Op{Kind: opDeclare, Value: content})
		if err == nil {
			l.ready.Store(index)
			l.nudge()
			return
		}
		select {
		case <-l.ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// keep does what a leader does from time to time.
func (l *lead) keep() {
	ticker := time.NewTicker(min(l.m.cfg.ElectionTimeout/20, 10*time.Millisecond))
	defer ticker.Stop()
	defer l.stopPulses()
	changing := make(chan struct{}, 1)
	for {
		l.members()
		l.judge()
		l.relist()
		l.overdue(5 * time.Millisecond)
		if next := l.m.fsm.next.Load(); next != 0 && next <= l.time() && l.ready.Load() != 0 {
			if _, err := l.command(Op{Kind: opTick}); err != nil {
				l.m.cfg.Logger.Debug("expired entries could not be taken out", "error", err)
			}
		}
		if c := l.nextSeat(); c != (change{}) {
			select {
			case changing <- struct{}{}:
				l.work.Go(func() {
					l.change(c)
					<-changing
				})
			default:
			}
		}
		select {
		case <-l.ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// members gives each other server a pulse.
func (l *lead) members() {
	config := l.m.config()
	l.m.book.members(config)
	there := map[string]bool{}
	for _, s := range config.Servers {
		id := string(s.ID)
		there[id] = true
		if id == l.m.id || l.pulses[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(l.ctx)
		l.pulses[id] = cancel
		l.work.Go(func() { l.beat(ctx, id, s.Address) })
	}
	for id, cancel := range l.pulses {
		if !there[id] {
			cancel()
			delete(l.pulses, id)
		}
	}
}

func (l *lead) stopPulses() {
	for _, cancel := range l.pulses {
		cancel()
	}
}

// nudge has the pulses sent now.
func (l *lead) nudge() {
	l.wakeMu.Lock()
	defer l.wakeMu.Unlock()
	close(l.wake)
	l.wake = make(chan struct{})
}

// beat sends the pulse to one server. A connection whose first packet is lost is dialled anew before the server's data are too old to be
// shown, and only if that fails, too, with more patience.
func (l *lead) beat(ctx context.Context, id string, addr hraft.ServerAddress) {
	interval, soon := min(l.m.cfg.ElectionTimeout/5, 100*time.Millisecond), l.m.cfg.QuorumLossTimeout/4
	dial := soon
	var echo int64
	for ctx.Err() == nil {
		l.wakeMu.Lock()
		wake := l.wake
		l.wakeMu.Unlock()
		sent := now()
		p := l.pulse()
		p.echo = echo
		a, err := l.m.trans.pulse(id, addr, dial, p)
		if dial = soon; err != nil {
			dial = l.m.trans.limit
		}
		if err == nil && a.ok {
			l.m.book.heard(id, l.term, a.applied, sent)
			if !l.open.Load() {
				l.judge()
			}
			first := echo == 0
			if echo = a.at; first {
				continue // what it may show waits for its own time
			}
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-wake:
			if err != nil { // it does not answer: not at once again
				<-timer.C
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (l *lead) pulse() pulse {
	m := l.m
	p := pulse{term: l.term, open: l.open.Load(), clock: l.time(), hosts: m.hosts.Load()}
	m.fsm.mu.Lock()
	p.commit, p.commitTerm = m.fsm.index, m.fsm.term
	m.fsm.mu.Unlock()
	return p
}

// judge decides whether the leadership is open: a majority of the hosts, and of the voters, answered within
// an election timeout, and has applied the declaration. The data may be shown for some time after that.
func (l *lead) judge() {
	m := l.m
	hosts := m.hostList()
	at := m.book.since(m.id, hosts, len(hosts)/2+1)
	window := int64(m.cfg.ElectionTimeout)
	open := at != 0 && now()-at <= window
	if ready := l.ready.Load(); ready == 0 {
		open = false
	} else if open && !l.open.Load() {
		open, _ = l.applied(ready)
	}
	if l.ctx.Err() != nil {
		return
	}
	var bits uint64
	for _, h := range m.book.connected(m.id, hosts, now()-window, true) {
		bits |= 1 << slices.Index(hosts, h)
	}
	m.hosts.Store(bits)
	if open {
		m.fresh.Store(at + int64(m.cfg.QuorumLossTimeout))
		m.openAt.Store(at)
		m.opened.Store(true)
	}
	if l.open.Swap(open) != open {
		l.nudge()
		m.leader.poke()
	}
	if open && m.node.current.Load() == nil {
		m.serve()
	}
}

// nextSeat looks at the seats with the leader's eyes. The newest incarnation of a host is the one that came
// into the configuration last.
func (l *lead) nextSeat() change {
	m := l.m
	servers, hosts := m.config().Servers, m.hostList()
	seats := make([]seat, len(servers))
	newest := map[string]int{}
	for i, s := range servers {
		newest[hostOf(s.Address)] = i
	}
	last := m.raft.LastIndex()
	for i, s := range servers {
		id, host := string(s.ID), hostOf(s.Address)
		p := m.book.get(id)
		at := slices.Index(hosts, host)
		seats[i] = seat{
			id: id, host: at, voter: s.Suffrage == hraft.Voter, latest: newest[host] == i,
			ready: at >= 0 && p.match > 0 && p.match+64 >= last && now()-p.heard <= int64(m.cfg.ElectionTimeout),
		}
		if at < 0 && l.newer(hosts) && slices.Contains(*m.node.hosts.Load(), host) {
			seats[i].host = len(hosts) // it waits without a vote until the new list is declared
		}
	}
	return nextSeat(seats, len(hosts), m.id)
}

func (l *lead) change(c change) {
	m := l.m
	limit := 4 * m.cfg.ElectionTimeout
	var err error
	what, who := "removed", c.remove
	if c.promote != "" {
		what, who = "promoted", c.promote
		for _, s := range m.config().Servers {
			if string(s.ID) == c.promote {
				err = m.raft.AddVoter(s.ID, s.Address, 0, limit).Error()
			}
		}
	} else {
		err = m.raft.RemoveServer(hraft.ServerID(c.remove), 0, limit).Error()
	}
	if err != nil {
		m.cfg.Logger.Debug("the cache's members could not be changed", "change", what, "peer", who, "error", err)
		return
	}
	m.cfg.Logger.Info("the cache's members changed", "change", what, "peer", who)
}

// newer reports whether this node's own list is another than the one agreed on, and became known later.
func (l *lead) newer(agreed []string) bool {
	m := l.m
	if slices.Equal(*m.node.hosts.Load(), agreed) {
		return false
	}
	m.fsm.mu.Lock()
	defer m.fsm.mu.Unlock()
	return m.seated.Load() >= m.fsm.st.hostsAt
}

// relist declares this node's own list, if it is newer, as soon as that costs nothing: as many hosts of the
// new list are there beyond its majority as of the old one beyond its, or all of it. So a list may be rolled
// out host by host, while the cache goes on.
func (l *lead) relist() {
	m := l.m
	agreed, own := m.hostList(), *m.node.hosts.Load()
	if !l.open.Load() || !l.newer(agreed) {
		return
	}
	since := now() - int64(m.cfg.ElectionTimeout)
	there := func(hosts []string) int { return len(m.book.connected(m.id, hosts, since, false)) }
	beyond := there(own) - (len(own)/2 + 1)
	if there(own) < len(own) && (beyond < 0 || beyond < there(agreed)-(len(agreed)/2+1)) {
		return
	}
	d := declaration{Caches: m.cfg.Caches, Default: m.cfg.Default, Hosts: own}
	content, err := json.Marshal(d)
	if err == nil {
		_, err = l.command(Op{Kind: opDeclare, Value: content})
	}
	if err != nil {
		m.cfg.Logger.Debug("the new list of hosts was not agreed on", "error", err)
		return
	}
	m.cfg.Logger.Info("the cache has a new list of hosts", "hosts", own, "before", agreed)
}

// admit lets a new incarnation in, without a vote.
func (l *lead) admit(id, host string) error {
	m := l.m
	if hosts := m.hostList(); !slices.Contains(hosts, host) && !(l.newer(hosts) && slices.Contains(*m.node.hosts.Load(), host)) {
		return fmt.Errorf("host %s is not in the list of hosts of the leader, %s; give all nodes the same list", host, m.cfg.Self)
	}
	for _, s := range m.config().Servers {
		if string(s.ID) == id {
			return nil
		}
	}
	return m.raft.AddNonvoter(hraft.ServerID(id), joinTarget(id, host), 0, 4*m.cfg.ElectionTimeout).Error()
}
