package cache

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// The simulation runs step and nextSeat on a few hosts under a fake clock, with answers that get lost and
// come late, cut links, crashes and restarts. Raft is there by its rules: a cluster has seats; its leader is
// open while a majority of its voters and of the hosts is in touch with it; a change of the seats needs a
// majority of the new voters.

type simCluster struct {
	id     string
	leader string // identity
	seats  []seat
	most   int // voters it had
	opened bool
}

type simNode struct {
	form    formation
	up      bool
	starts  int
	id      string
	readyAt int64 // it has caught up then
}

type sim struct {
	t        *testing.T
	r        *rand.Rand
	now      int64
	nodes    []*simNode
	cut      [8][8]bool
	clusters map[string]*simCluster
	trace    []string
	late     []lateView
	founded  int
}

type lateView struct {
	at, to int64
	ev     evView
}

func newSim(t *testing.T, seed uint64, n int) *sim {
	s := &sim{t: t, r: rand.New(rand.NewPCG(seed, 7)), now: 1000, clusters: map[string]*simCluster{}}
	for range n {
		s.nodes = append(s.nodes, &simNode{})
	}
	for i := range n {
		if s.r.IntN(4) > 0 {
			s.start(i)
		}
	}
	return s
}

func (s *sim) logf(format string, args ...any) {
	if len(s.trace) > 400 {
		s.trace = append(s.trace[:0], s.trace[200:]...)
	}
	s.trace = append(s.trace, fmt.Sprintf("%6d ", s.now)+fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	s.t.Helper()
	for _, line := range s.trace[max(0, len(s.trace)-60):] {
		s.t.Log(line)
	}
	for i, n := range s.nodes {
		s.t.Logf("host %d: up %v, %s, %+v", i, n.up, n.id, n.form)
	}
	s.t.Logf("cut: %v", s.cut)
	s.t.Fatalf(format, args...)
}

func (s *sim) start(i int) {
	n := s.nodes[i]
	n.up = true
	n.form = formation{
		self: i, quorum: len(s.nodes)/2 + 1, list: 1, patient: 2000, grace: 1000, fresh: 500, views: make([]view, len(s.nodes)), last: s.now,
	}
	s.renew(i)
	s.logf("start %d as %s", i, n.id)
}

func (s *sim) renew(i int) {
	n := s.nodes[i]
	n.starts++
	n.id, n.readyAt = fmt.Sprintf("%d.%d", i, n.starts), 0
}

func (s *sim) stop(i int) {
	s.nodes[i].up = false
	s.logf("stop %d", i)
}

func hostOfID(id string) int { return int(id[0] - '0') }

// alive reports whether an identity is that of a running node, bound to the cluster.
func (s *sim) alive(id string, c *simCluster) bool {
	n := s.nodes[hostOfID(id)]
	return n.up && n.id == id && n.form.bound && n.form.cluster == c.id
}

func (s *sim) linked(a, b string) bool {
	i, j := hostOfID(a), hostOfID(b)
	return i == j || !s.cut[i][j] && !s.cut[j][i]
}

// touch returns how many voters and hosts of a cluster are in touch with one of its servers.
func (s *sim) touch(c *simCluster, id string, seats []seat) (voters, all, hosts int) {
	var seen [8]bool
	for _, st := range seats {
		there := s.alive(st.id, c) && s.linked(id, st.id)
		if st.voter {
			all++
			if there {
				voters++
			}
		}
		if there && !seen[st.host] {
			seen[st.host] = true
			hosts++
		}
	}
	return voters, all, hosts
}

func (s *sim) commits(c *simCluster, seats []seat) bool {
	if c.leader == "" {
		return false
	}
	v, all, _ := s.touch(c, c.leader, seats)
	return s.alive(c.leader, c) && v >= all/2+1
}

// raft lets each cluster elect, change its seats, and acknowledge.
func (s *sim) raft() {
	for _, id := range s.clusterIDs() {
		c := s.clusters[id]
		if !slices.ContainsFunc(c.seats, func(st seat) bool { return s.alive(st.id, c) }) {
			delete(s.clusters, id)
			continue
		}
		if !s.commits(c, c.seats) {
			c.leader = ""
			for _, st := range c.seats {
				if v, all, _ := s.touch(c, st.id, c.seats); st.voter && s.alive(st.id, c) && v >= all/2+1 && s.r.IntN(3) == 0 {
					c.leader = st.id
					s.logf("cluster %s: %s leads", c.id, st.id)
					break
				}
			}
			continue
		}
		s.changeSeats(c)
		if s.open(c) {
			if !c.opened {
				s.logf("cluster %s opens", c.id)
			}
			c.opened = true
		}
	}
}

func (s *sim) clusterIDs() []string {
	var ids []string
	for id := range s.clusters {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (s *sim) open(c *simCluster) bool {
	if !s.commits(c, c.seats) {
		return false
	}
	_, _, hosts := s.touch(c, c.leader, c.seats)
	return hosts >= len(s.nodes)/2+1
}

func (s *sim) changeSeats(c *simCluster) {
	seats := slices.Clone(c.seats)
	last := map[int]int{}
	for i, st := range seats {
		last[st.host] = i
	}
	for i := range seats {
		n := s.nodes[seats[i].host]
		seats[i].latest = last[seats[i].host] == i
		seats[i].ready = s.alive(seats[i].id, c) && s.linked(c.leader, seats[i].id) && n.readyAt != 0 && s.now >= n.readyAt
	}
	change := nextSeat(seats, len(s.nodes), c.leader)
	switch {
	case change.promote != "":
		for i := range seats {
			seats[i].voter = seats[i].voter || seats[i].id == change.promote
		}
	case change.remove != "":
		seats = slices.DeleteFunc(seats, func(st seat) bool { return st.id == change.remove })
	default:
		return
	}
	if s.commits(c, seats) {
		c.seats = seats
		s.logf("cluster %s: %+v", c.id, change)
	}
	voters := 0
	for _, st := range c.seats {
		if st.voter {
			voters++
		}
	}
	if voters < min(c.most, len(s.nodes))-1 {
		s.fail("cluster %s has %d voters after %d, for %d hosts", c.id, voters, c.most, len(s.nodes))
	}
	c.most = max(c.most, voters)
}

func (s *sim) deliver(i int, ev any) {
	n := s.nodes[i]
	was := n.form
	next, effects := step(n.form, ev)
	n.form = next
	for _, e := range effects {
		switch e := e.(type) {
		case effFound:
			n.form.cluster = n.id
			s.founded++
			s.clusters[n.id] = &simCluster{id: n.id, leader: n.id, seats: []seat{{id: n.id, host: i, voter: true, latest: true}}}
			s.logf("%s founds", n.id)
		case effJoin:
			s.logf("%s joins %s", n.id, e.cluster)
		case effEmpty:
			if t, ok := ev.(evTick); ok && t.open {
				s.fail("%s empties itself although its leader is open", n.id)
			}
			s.logf("%s of cluster %s is empty: %s", n.id, was.cluster, e.reason)
			s.renew(i)
		}
	}
}

func (s *sim) hears(i int) bool {
	n := s.nodes[i]
	c := s.clusters[n.form.cluster]
	return n.form.bound && c != nil && c.leader != "" && s.seated(c, n.id) && s.linked(c.leader, n.id) && s.open(c)
}

func (s *sim) seated(c *simCluster, id string) bool {
	return slices.ContainsFunc(c.seats, func(st seat) bool { return st.id == id })
}

func (s *sim) view(j int) view {
	n := s.nodes[j]
	v := view{at: s.now, id: n.id, list: 1, bound: n.form.bound, cluster: n.form.cluster, open: s.hears(j)}
	c := s.clusters[n.form.cluster]
	v.founder = n.form.bound && n.form.founder && c != nil && !c.opened
	return v
}

// round is 50 ms: views, some of them late, ticks, joins, raft, and the invariant.
func (s *sim) round() {
	s.now += 50
	rest := s.late[:0]
	for _, l := range s.late {
		if l.at <= s.now && s.nodes[l.to].up {
			s.deliver(int(l.to), l.ev)
		} else if l.at > s.now {
			rest = append(rest, l)
		}
	}
	s.late = rest
	for i, n := range s.nodes {
		if !n.up {
			continue
		}
		j := s.r.IntN(len(s.nodes))
		if j != i {
			ev := evView{host: j}
			if s.nodes[j].up && !s.cut[i][j] && !s.cut[j][i] {
				ev.view = s.view(j)
			}
			s.late = append(s.late, lateView{s.now + s.r.Int64N(150), int64(i), ev})
		}
		s.deliver(i, evTick{now: s.now, open: s.hears(i)})
		s.knock(i)
	}
	s.raft()
	open := 0
	for _, c := range s.clusters {
		if c.leader != "" && s.open(c) {
			open++
		}
	}
	if open > 1 {
		s.fail("%d clusters are open at a time", open)
	}
}

// knock lets a bound node into its cluster's seats.
func (s *sim) knock(i int) {
	n := s.nodes[i]
	c := s.clusters[n.form.cluster]
	if !n.form.bound || c == nil || c.leader == "" || s.seated(c, n.id) || !s.linked(c.leader, n.id) || !s.commits(c, c.seats) {
		return
	}
	c.seats = append(c.seats, seat{id: n.id, host: i})
	n.readyAt = s.now + s.r.Int64N(400)
}

// settled reports whether all running nodes are voters of one open cluster.
func (s *sim) settled() bool {
	for i, n := range s.nodes {
		if n.up && !s.hears(i) {
			return false
		}
	}
	return true
}

// TestFormationSimulated: at most one cluster is open at any time (P11), no node leaves an open one, and as
// soon as faults end all running nodes come together in one, whatever happened before.
func TestFormationSimulated(t *testing.T) {
	schedules := 2000
	if os.Getenv("LOCUM_FAULTS") != "" {
		schedules = 50000
	}
	var rounds, founded int
	for seed := range uint64(schedules) {
		n := 1 + int(seed%7)
		if n == 1 {
			n = 3
		}
		s := newSim(t, seed, n)
		for range 60 {
			s.fault()
			for range 1 + s.r.IntN(6) {
				s.round()
			}
		}
		s.cut = [8][8]bool{}
		for i := range s.nodes {
			if !s.nodes[i].up {
				s.start(i)
			}
		}
		healed := s.now
		for !s.settled() {
			s.round()
			if s.now-healed > 60_000 {
				s.fail("seed %d: not together after a minute without faults", seed)
			}
		}
		rounds += int(s.now-1000) / 50
		founded += s.founded
	}
	t.Logf("%d schedules, %d rounds, %d clusters founded", schedules, rounds, founded)
}

func (s *sim) fault() {
	i, j := s.r.IntN(len(s.nodes)), s.r.IntN(len(s.nodes))
	switch s.r.IntN(8) {
	case 0:
		if s.nodes[i].up {
			s.stop(i)
		}
	case 1, 2:
		if !s.nodes[i].up {
			s.start(i)
		}
	case 3:
		s.cut[i][j] = i != j
	case 4, 5:
		s.cut = [8][8]bool{}
	}
}

// TestMinorityLost: while a majority of the hosts stays, in touch, the cluster stays the one it is, whatever
// the others do (P11).
func TestMinorityLost(t *testing.T) {
	for seed := range uint64(100) {
		n := []int{3, 5, 7}[seed%3]
		s := newSim(t, seed, n)
		for i := range s.nodes {
			if !s.nodes[i].up {
				s.start(i)
			}
		}
		for range 400 {
			s.round()
		}
		full := ""
		for _, c := range s.clusters {
			if s.open(c) && len(c.seats) == n {
				full = c.id
			}
		}
		if full == "" {
			s.fail("seed %d: no full cluster", seed)
		}
		for range 40 { // the last ones come and go
			i := n/2 + 1 + s.r.IntN(n-n/2-1)
			switch {
			case !s.nodes[i].up:
				s.start(i)
			case s.r.IntN(2) == 0:
				s.stop(i)
			default:
				j := s.r.IntN(n)
				s.cut[i][j] = !s.cut[i][j] && i != j
			}
			for range 1 + s.r.IntN(20) {
				s.round()
			}
			for k := range n/2 + 1 {
				if s.nodes[k].form.cluster != full {
					s.fail("seed %d: host %d left cluster %s although a majority stayed", seed, k, full)
				}
			}
		}
	}
}

// TestNextSeat: a second seat is taken away only after a newcomer got one.
func TestNextSeat(t *testing.T) {
	for _, c := range []struct {
		name  string
		seats []seat
		want  change
	}{
		{"nothing to do", []seat{{"a", 0, true, true, true}, {"b", 1, true, true, true}, {"c", 2, true, true, true}}, change{}},
		{"a stale seat goes first", []seat{{"a", 0, true, true, true}, {"b", 1, true, true, true}, {"c", 2, true, true, false}, {"c2", 2, false, true, true}}, change{remove: "c"}},
		{"then the newcomer votes", []seat{{"a", 0, true, true, true}, {"b", 1, true, true, true}, {"c2", 2, false, true, true}}, change{promote: "c2"}},
		{"not before it has caught up", []seat{{"a", 0, true, true, true}, {"b", 1, true, true, true}, {"c2", 2, false, false, true}}, change{}},
		{"no second seat", []seat{{"a", 0, true, true, true}, {"b", 1, true, true, false}, {"b2", 1, false, false, true}}, change{}},
		{"a host that is not listed goes", []seat{{"a", 0, true, true, true}, {"b", 1, true, true, true}, {"c", 2, true, true, true}, {"x", -1, true, true, true}}, change{remove: "x"}},
		{"a stale newcomer goes", []seat{{"a", 0, true, true, true}, {"c2", 2, false, false, false}, {"c3", 2, false, false, true}}, change{remove: "c2"}},
	} {
		if got := nextSeat(c.seats, 3, "a"); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
