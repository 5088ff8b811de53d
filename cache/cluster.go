package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// shell runs a node among other hosts: it carries out what step decides.
type shell struct {
	n      *Node
	dialer *dialer
	list   uint64

	id    atomic.Pointer[string] // of the present incarnation
	form  formation              // owned by run
	state atomic.Pointer[view]   // what others are told
	views chan evView
	asked sync.Map // the last answers, view by host, for those who look for a leader
	polls sync.WaitGroup
	quiet context.CancelFunc // ends the asking

	admitMu sync.RWMutex // held while the member changes; by connections that are let in
	work    sync.WaitGroup
	refusal atomic.Pointer[string] // why the leader did not let this node in
}

func (n *Node) runCluster(ctx context.Context) error {
	s := &shell{n: n, views: make(chan evView, maxHosts)}
	s.dialer = &dialer{layer: n.cfg.Layer}
	if n.cfg.Layer == nil {
		keys, err := deriveKeys(n.cfg.AuthToken)
		if err != nil {
			return err
		}
		if len(n.cfg.AuthToken) < 16 {
			n.cfg.Logger.Warn("the cache's auth token is short; 16 characters or more are advised")
		}
		layer, err := n.newTCPLayer(ctx, keys)
		if err != nil {
			return err
		}
		s.dialer.keys, s.dialer.layer = keys, layer
	}
	addr := s.dialer.layer.Addr()
	n.listenAddr.Store(&addr)
	s.advise()
	var p proposer = clustered{n}
	n.engine.Store(&p)

	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.list = hashList(*n.hosts.Load())
	s.renew() // before anybody asks, or is asked
	s.work.Go(func() { s.accept(inner) })
	s.relist(inner)
	s.run(ctx, inner)

	s.quiet()
	s.polls.Wait()
	n.engine.Store(nil)
	s.leave(inner)
	cancel(errStopping)
	_ = s.dialer.layer.Close() // nothing is left to do about a listener that does not close
	s.work.Wait()
	return nil
}

// relist begins to look for the others by the node's list of hosts, as it is now.
func (s *shell) relist(ctx context.Context) {
	if s.quiet != nil {
		s.quiet()
		s.polls.Wait()
		for len(s.views) > 0 {
			<-s.views
		}
	}
	n, poll := s.n, s.pollInterval()
	hosts := *n.hosts.Load()
	s.list = hashList(hosts)
	s.form.self, s.form.quorum, s.form.list = slices.Index(hosts, n.cfg.Self), n.quorum(), s.list
	s.form.patient = n.cfg.QuorumLossTimeout.Milliseconds()
	s.form.grace = max(2*n.cfg.ElectionTimeout, time.Second).Milliseconds()
	s.form.fresh = max(5*poll, n.cfg.ElectionTimeout).Milliseconds()
	s.form.views, s.form.several, s.form.mismatch = make([]view, len(hosts)), 0, ""
	if s.form.last == 0 {
		s.form.last = nowMillis()
	}
	asking, quiet := context.WithCancel(ctx)
	s.quiet = quiet
	for i, h := range hosts {
		if h != n.cfg.Self {
			s.polls.Go(func() { s.ask(asking, i, h) })
		}
	}
	if m := n.member.Load(); m != nil {
		m.relist()
	}
}

func nowMillis() int64 { return now()/int64(time.Millisecond) + 1 }

func (s *shell) pollInterval() time.Duration {
	return min(max(s.n.cfg.ElectionTimeout/5, 20*time.Millisecond), 200*time.Millisecond)
}

// hashList tells lists apart, which are sorted.
func hashList(hosts []string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.Join(hosts, "\n")))
	return h.Sum64()
}

func (s *shell) advise() {
	n := len(*s.n.hosts.Load())
	log := s.n.cfg.Logger
	log.Info("cache node starts", "host", s.n.cfg.Self, "hosts", n, "quorum", s.n.quorum(), "address", s.dialer.layer.Addr().String())
	if advice := Advice(n); advice != "" {
		log.Warn(advice)
	}
}

// Advice says what a number of hosts does not give, in a sentence; "" for three or five. A node says it at its start.
func Advice(hosts int) string {
	quorum := hosts/2 + 1
	switch {
	case hosts < 1:
		return ""
	case hosts == 1:
		return "a cache of 1 host loses everything with it: 3 or 5 are advised"
	case hosts == 2:
		return "a cache of 2 hosts stops when either is lost: 3 or 5 are advised"
	case hosts%2 == 0:
		return fmt.Sprintf("a cache of %d hosts survives the loss of %d, as one of %d does: 3 or 5 are advised", hosts, hosts-quorum, hosts-1)
	case hosts > 5:
		return fmt.Sprintf("in a cache of %d hosts each write waits for %d of them: 3 or 5 are advised", hosts, quorum)
	}
	return ""
}

// renew begins a new incarnation.
func (s *shell) renew() {
	id := rand.Text()
	s.id.Store(&id)
	s.state.Store(&view{id: id, list: s.list})
}

// run is the node's one loop of decisions.
func (s *shell) run(ctx, inner context.Context) {
	ticker := time.NewTicker(s.pollInterval() / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-s.views:
			s.step(ev)
		case <-s.n.relisted:
			s.relist(inner)
		case <-ticker.C:
			m := s.n.member.Load()
			if m != nil && m.ctx.Err() != nil {
				s.empty(context.Cause(m.ctx).Error())
				s.form.bound = false
			}
			s.step(evTick{now: nowMillis(), open: m != nil && m.heardOpen()})
			s.publish()
		}
	}
}

// heardOpen reports whether this member heard of an open leader within the last election timeout or so.
func (m *member) heardOpen() bool {
	return m.opened.Load() && m.openAt.Load()+int64(m.cfg.ElectionTimeout) >= now()
}

func (s *shell) step(ev any) {
	next, effects := step(s.form, ev)
	s.form = next
	for _, e := range effects {
		switch e := e.(type) {
		case effFound:
			s.form.cluster = *s.id.Load()
			s.bind(s.form.cluster, true)
		case effJoin:
			s.bind(e.cluster, false)
		case effEmpty:
			s.empty(e.reason)
		}
	}
}

func (s *shell) bind(cluster string, found bool) {
	m, err := s.n.newMember(*s.id.Load(), cluster, found, s.dialer)
	if err != nil {
		s.n.cfg.Logger.Error("the cache cannot start", "error", err)
		s.form.bound = false
		return
	}
	s.admitMu.Lock()
	s.n.member.Store(m)
	s.admitMu.Unlock()
	s.publish()
	if found {
		s.n.cfg.Logger.Info("cache founded, waiting for the others", "identity", m.id)
		return
	}
	s.n.cfg.Logger.Info("joining the cache", "cluster", cluster, "identity", m.id)
	m.work.Go(func() { s.knock(m) })
}

// knock asks to be let in until a leader has sent something.
func (s *shell) knock(m *member) {
	ticker := time.NewTicker(s.pollInterval())
	defer ticker.Stop()
	for !m.heard.Load() {
		if host := s.leaderOf(m.cluster); host != "" {
			if err := s.join(m, host); err != nil {
				reason := err.Error()
				s.refusal.Store(&reason)
			} else {
				s.refusal.Store(nil)
			}
		}
		select {
		case <-m.ctx.Done():
			return
		case <-ticker.C:
		}
	}
	s.refusal.Store(nil)
}

// leaderOf returns the host of a cluster's leader, as the others last said.
func (s *shell) leaderOf(cluster string) string {
	var host string
	s.asked.Range(func(_, answer any) bool {
		if v, ok := answer.(view); ok && v.at != 0 && v.bound && v.cluster == cluster && v.host != "" {
			host = v.host
		}
		return host == ""
	})
	return host
}

// empty drops everything (P11) and begins a new incarnation.
func (s *shell) empty(reason string) {
	n := s.n
	m := n.member.Load()
	if m == nil {
		return
	}
	old := n.current.Swap(nil)
	s.admitMu.Lock()
	n.member.Store(nil)
	s.renew()
	s.admitMu.Unlock()
	m.cancel(ErrNoQuorum)
	n.current.Store(nil) // the member may have shown itself meanwhile
	s.publish()          // at once (P10): to end the member may take time
	m.close()
	n.current.Store(nil)
	n.events.missed()
	if old == nil {
		n.cfg.Logger.Info("cache node begins anew", "reason", reason)
		return
	}
	n.emptied.Add(1)
	n.retire(old.st)
	n.cfg.Logger.Warn("cache emptied", "reason", reason)
	if tell := n.cfg.Observer.Emptied; tell != nil {
		tell(reason)
	}
}

// leave ends the node's part in the cache. A leader hands over first.
func (s *shell) leave(ctx context.Context) {
	m := s.n.member.Load()
	if m == nil {
		return
	}
	s.n.current.Store(nil)
	s.n.health.set(Health{State: Stopped, Hosts: *s.n.hosts.Load(), Quorum: s.n.quorum(), Reason: "stopping"})
	limit, cancel := context.WithTimeout(ctx, 2*s.n.cfg.ElectionTimeout)
	defer cancel()
	m.handOver(limit)
	s.admitMu.Lock()
	s.n.member.Store(nil)
	s.admitMu.Unlock()
	m.cancel(errStopping)
	m.close()
	s.n.current.Store(nil)
	s.n.events.missed()
}

// publish says how things are: to the others, and as this node's health.
func (s *shell) publish() {
	n, m := s.n, s.n.member.Load()
	v := view{id: *s.id.Load(), list: s.list}
	h := Health{State: Forming, Hosts: *n.hosts.Load(), Quorum: n.quorum(), Reason: s.seekReason()}
	if m != nil {
		h.Hosts, h.Quorum = m.hostList(), m.quorum()
		id, host, _ := m.leader.get()
		v.bound, v.cluster, v.open = true, m.cluster, m.heardOpen()
		v.founder = s.form.founder && !m.opened.Load()
		v.leader, v.host = id, host
		h.Leader, h.Term = host, m.raft.CurrentTerm()
		s.describe(&h, m, v.open)
	}
	s.state.Store(&v)
	n.health.set(h)
}

func (s *shell) describe(h *Health, m *member, open bool) {
	n := s.n
	serving := n.view() != nil
	h.State = Joining
	if serving {
		h.State = Follower
	}
	if l := m.lead.Load(); l != nil && (serving || l.open.Load()) {
		h.State = Leads
	}
	if open {
		bits := m.hosts.Load()
		for i, host := range h.Hosts {
			if bits&(1<<i) != 0 || host == n.cfg.Self && serving {
				h.Connected = append(h.Connected, host)
			}
		}
	}
	switch {
	case !serving && s.refusal.Load() != nil:
		h.Reason = *s.refusal.Load()
	case !serving:
		h.Reason = "waiting for a majority of the hosts, or for the state"
	case !open:
		h.Status, h.Reason = Degraded, "no leader now"
	case len(h.Connected) < len(h.Hosts):
		h.Status, h.Reason = Degraded, fmt.Sprintf("%d of %d hosts are connected", len(h.Connected), len(h.Hosts))
	default:
		h.Status, h.Reason = Good, ""
	}
}

func (s *shell) seekReason() string {
	if s.form.mismatch != "" {
		var i int
		if _, err := fmt.Sscan(s.form.mismatch, &i); err == nil && i < len(*s.n.hosts.Load()) {
			return fmt.Sprintf("host %s has another list of hosts; give all nodes the same", (*s.n.hosts.Load())[i])
		}
	}
	var there uint64
	for i := range s.form.views {
		if s.form.live(s.form.views[i]) {
			there |= 1 << i
		}
	}
	return fmt.Sprintf("looking for the others: %d of %d hosts answer, %d are needed", bits.OnesCount64(there)+1, len(s.form.views), s.n.quorum())
}

// accept lets connections in until the layer is closed.
func (s *shell) accept(ctx context.Context) {
	half := make(chan struct{}, 256) // unfinished handshakes (P9, P12)
	for pause := 5 * time.Millisecond; ; {
		conn, err := s.dialer.layer.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			s.n.cfg.Logger.Warn("cache port cannot accept", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		select {
		case half <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		s.work.Go(func() { s.admit(ctx, conn, func() { <-half }) })
	}
}

// admit proves a connection and hands it to whom it is for.
func (s *shell) admit(ctx context.Context, conn net.Conn, proven func()) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err := conn.SetDeadline(time.Now().Add(5 * time.Second))
	var h hello
	var m *member
	if err == nil {
		h, err = s.dialer.accept(conn, func(h hello) bool {
			if h.purpose == forStatus {
				return true
			}
			s.admitMu.RLock()
			defer s.admitMu.RUnlock()
			m = s.n.member.Load()
			return m != nil && h.cluster == m.cluster && h.to == m.id && slices.Contains([]byte{forRaft, forWrites}, h.purpose)
		})
	}
	proven()
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		if errors.Is(err, errProof) || errors.Is(err, errFormat) {
			s.n.cfg.Logger.Warn("connection to the cache port refused", "from", conn.RemoteAddr().String(), "error", err)
		}
		return
	}
	switch h.purpose {
	case forStatus:
		s.answer(conn)
	case forRaft:
		m.spawn(func() { m.trans.serve(conn, h) }, func() { _ = conn.Close() })
	case forWrites:
		m.spawn(func() { m.serveWrites(conn, h) }, func() { _ = conn.Close() })
	}
}

// spawn runs f as part of the member and waits for it; otherwise, if the member is closed, it runs not.
func (m *member) spawn(f, not func()) {
	m.spawnMu.Lock()
	if m.closed {
		m.spawnMu.Unlock()
		not()
		return
	}
	done := make(chan struct{})
	m.work.Go(func() {
		defer close(done)
		f()
	})
	m.spawnMu.Unlock()
	<-done
}
