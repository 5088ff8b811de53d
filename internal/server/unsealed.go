package server

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/election"
)

// unsealed is the life of the node between unsealing and sealing: it stands in the election, follows whoever is
// active, or leads.
type unsealed struct {
	*Server
	election *election.Election // nil where the storage has no HA lock
	members  members

	role    sync.Mutex // an activation or deactivation against a decision whom to follow
	leading atomic.Pointer[leading]
	leader  atomic.Pointer[cluster.Advertisement] // whom this node follows
	rival   atomic.Pointer[rival]                 // the best of the other candidates, as the active node told
	kicked  chan struct{}                         // wakes the follower
	hurries atomic.Bool                           // requests wait, and the election was told so
	closing atomic.Bool                           // this node is being sealed
	apps    *applications

	cancelElection context.CancelFunc
	cancelFollow   context.CancelFunc
	wg             sync.WaitGroup
	electionOver   chan struct{}
}

// live begins the life. The barrier is unsealed and, on raft, the store runs.
func (s *Server) live() (*unsealed, error) {
	u := &unsealed{Server: s, kicked: make(chan struct{}, 1), electionOver: make(chan struct{})}
	e, err := election.New(u.electionConfig())
	if err != nil {
		return nil, err
	}
	u.election = e
	if u.apps, err = u.newApplications(); err != nil {
		return nil, err
	}
	u.firstOrders()
	s.life.Store(u)
	u.apps.run()
	follow, cancelFollow := context.WithCancel(context.Background())
	elect, cancelElection := context.WithCancel(context.Background())
	u.cancelFollow, u.cancelElection = cancelFollow, cancelElection
	u.wg.Go(func() {
		if err := u.follow(follow); err != nil {
			s.log.Error("following ended", "error", err)
		}
	})
	if s.raft != nil {
		u.wg.Go(func() { u.trust(follow) })
	}
	u.wg.Go(func() {
		defer close(u.electionOver)
		if err := e.Run(elect); err != nil {
			s.log.Error("election ended", "error", err)
		}
	})
	return u, nil
}

func (u *unsealed) electionConfig() election.Config {
	ha := u.cfg.HA
	return election.Config{
		ID: u.id, Name: u.cfg.NodeName,
		Candidate: ha.Candidate, Priority: &ha.Priority,
		Lock: u.lock, Store: u.storage, TTL: ha.LockTTL,
		Activate: u.activate, Drain: u.drain, Deactivate: u.deactivate, Successor: u.successor,
		DrainTimeout: ha.DrainTimeout + u.stopLimit(), MinFailover: ha.MinFailoverInterval,
		Logger: u.log.With("part", "election"), Observer: u.electionObserver(),
	}
}

// stepOut leaves the election: if this node is active it hands over, as planned. It follows whoever comes next.
func (u *unsealed) stepOut() {
	u.cancelElection()
	<-u.electionOver
}

// end ends the life.
func (u *unsealed) end() {
	u.stepOut()
	u.apps.end()
	u.cancelFollow()
	u.wg.Wait()
	u.life.Store(nil)
}

// kick lets the follower look at once.
func (u *unsealed) kick() {
	select {
	case u.kicked <- struct{}{}:
	default:
	}
}

// isActive reports whether this node is the active one at this instant.
func (u *unsealed) isActive() bool {
	l := u.leading.Load()
	return l != nil && u.election.State().Role == election.Active && l.term.Lease.Valid()
}

// hello is what the other side of a forwarding connection is told of this node.
func (s *Server) hello() []byte {
	h := hello{
		Format: helloFormat, ID: s.id, Name: s.cfg.NodeName, APIAddr: s.apiAddr, ClusterAddr: s.clusterAddr,
		Version: s.opts.Version, Priority: s.cfg.HA.Priority, Candidate: s.cfg.HA.Candidate,
		Incarnation: s.router.Incarnation(),
	}
	if u := s.life.Load(); u != nil {
		st := u.election.State()
		h.Term, h.Reason = st.Term, whyStandby(st)
		h.Candidate, h.Eligible = st.Candidate, s.cfg.HA.Candidate
		if h.Candidate && u.leading.Load() == nil {
			if h.Unfit = u.apps.unfit(); h.Unfit != "" {
				h.Reason = h.Unfit
			}
		}
		o := s.orders.Load()
		if o != nil {
			h.OrdersKept = o.Revision
		}
		if o.inMaintenance(s.cfg.NodeName) {
			h.Reason = "in maintenance"
		}
		if u.leading.Load() != nil {
			h.Candidates, h.Orders = u.members.rivals(), o
		}
	}
	if mark := s.authority.Load(); mark != nil {
		h.Authority = *mark
	}
	if s.stopping.Load() || s.life.Load() == nil {
		h.Candidate, h.Eligible, h.Reason = false, false, "shutting down, or sealed"
	}
	data, err := json.Marshal(h)
	if err != nil {
		s.log.Error("hello", "error", err)
	}
	return data
}

// heard takes what the other side of a forwarding connection said of itself.
func (s *Server) heard(peer string, data []byte, rtt, skew time.Duration) {
	u := s.life.Load()
	if u == nil {
		return
	}
	h, err := readHello(peer, data)
	if err != nil {
		if u.members.news(peer, err) {
			s.log.Warn("what another node says of itself is not understood: it is served, and not a member here", "id", peer, "error", err)
		}
		return
	}
	if u.leading.Load() != nil {
		if u.members.heard(h, rtt, skew) {
			s.router.HelloChanged() // a crash in the next second must not find standbys that do not know who goes first
		}
		return
	}
	u.prefer(h.Candidates)
	if h.Orders != nil {
		u.obey(h.Orders)
		u.lastActive(false)
	}
}

// prefer lets the best of the other candidates go first, if it is of a newer version or has a higher priority than this node.
func (u *unsealed) prefer(candidates []rival) {
	best := u.foremost(candidates)
	if was := u.rival.Swap(&best); was != nil && *was == best {
		return
	}
	u.election.SetRival(best.ID, best.Priority)
	if u.raft == nil {
		return
	}
	// Raft chooses who may acquire the lock: whoever asks for votes later is chosen only if nobody else can be.
	delay, step := time.Duration(0), u.raft.Caps().DefaultTTL
	switch {
	case !u.cfg.HA.Candidate:
		delay = 3 * step
	case best.ID != "" && best.Priority > u.cfg.HA.Priority:
		delay = step
	}
	u.raft.SetVoteDelay(delay)
}

// whyStandby says in a few words why a node is not active.
func whyStandby(st election.State) string {
	switch {
	case st.Role == election.Active:
		return ""
	case !st.Candidate:
		return "not a candidate"
	case st.Paused:
		return "paused"
	case st.LastError != nil:
		return fmt.Sprintf("%s: %v", st.Role, st.LastError)
	case st.Holder.Holder != "":
		return fmt.Sprintf("%s holds the lock", st.Holder.Name)
	}
	return st.Role.String()
}

// settle is how long a node waits for its own store to show what it needs before it says what is missing.
const settle = 30 * time.Second
