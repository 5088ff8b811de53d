package forward

import "time"

// Peer is a standby that is connected to this node while it leads.
type Peer struct {
	ID       string
	Name     string
	Since    time.Time
	LastEcho time.Time // zero: none yet
	RTT      time.Duration
	Skew     time.Duration // its wall clock minus this node's; for people, nothing is decided by it
	Hello    []byte        // its Config.Hello
}

// HelloChanged has what Config.Hello returns now told at once to the other ends of this node's connections. Without it they learn of it within a
// second.
func (r *Router) HelloChanged() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.serving {
		signal(c.news)
	}
	if r.follower == nil {
		return
	}
	if s := r.follower.conn.Load(); s != nil {
		signal(s.news)
	}
}

// Peers returns the standbys that are connected.
func (r *Router) Peers() []Peer {
	r.mu.Lock()
	conns := r.serverConns()
	r.mu.Unlock()
	peers := make([]Peer, 0, len(conns))
	for _, c := range conns {
		p := Peer{
			ID: c.peerID, Name: c.peerName[0], Since: c.since,
			LastEcho: fromNano(c.lastEcho.Load()), RTT: time.Duration(c.rtt.Load()), Skew: time.Duration(c.skew.Load()),
			Hello: []byte(c.peer.info),
		}
		if info := c.lastInfo.Load(); info != nil {
			p.Hello = []byte(*info)
		}
		peers = append(peers, p)
	}
	return peers
}

// Connection is a standby's connection to the active node.
type Connection struct {
	Target   Target
	Up       bool // connected, and the other node says that it leads
	Since    time.Time
	LastEcho time.Time
	RTT      time.Duration
	Skew     time.Duration
}

// Connected returns the connection to the active node; ok is false while this node follows none.
func (r *Router) Connected() (c Connection, ok bool) {
	r.mu.Lock()
	f, up := r.follower, r.session
	r.mu.Unlock()
	if f == nil {
		return Connection{}, false
	}
	c.Target = *f.target
	if s := f.conn.Load(); s != nil {
		c.Up = up == s
		c.Since, c.LastEcho = s.since, fromNano(s.lastEcho.Load())
		c.RTT, c.Skew = time.Duration(s.rtt.Load()), time.Duration(s.skew.Load())
	}
	return c, true
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
