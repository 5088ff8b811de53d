package raft

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
)

// peerBook knows of each peer where it is and what it last acknowledged. It is the leader's evidence: for
// leases (a majority of the voters promised), for promotion (caught up), for removal (silent).
type peerBook struct {
	self identity

	mu      sync.Mutex
	learned map[string]string    // id -> address, newer than the agreed one
	agreed  map[string]string    // id -> address that the cluster has agreed on
	peers   map[string]*progress // id -> what it acknowledged
	acked   chan struct{}        // closed and replaced at each acknowledgement
	without map[string]bool      // peers whose configuration lacks this node
	alone   atomic.Bool          // without is not empty
}

// progress is what a leader knows of one peer.
type progress struct {
	term    uint64           // the leader's term in which all of this was observed
	sent    boottime.Instant // when the last acknowledged message was sent: the promise counts from then
	match   uint64           // the peer's log agrees with the leader's up to here
	since   boottime.Instant // answers came without a failure since then
	answers bool             // whether the last message was answered
}

func newPeerBook(self identity) *peerBook {
	return &peerBook{
		self: self, learned: map[string]string{}, agreed: map[string]string{},
		peers: map[string]*progress{}, acked: make(chan struct{}), without: map[string]bool{},
	}
}

// addr returns where to dial a peer.
func (b *peerBook) addr(id string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if addr := b.learned[id]; addr != "" {
		return addr, nil
	}
	if addr := b.agreed[id]; addr != "" {
		return addr, nil
	}
	return "", fmt.Errorf("no address is known for node %s", id)
}

// agree takes the addresses over that the cluster has agreed on. The map is not changed afterwards.
func (b *peerBook) agree(addrs map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.agreed = addrs
	for id, addr := range b.learned {
		if addrs[id] == addr {
			delete(b.learned, id)
		}
	}
}

// learn notes where a peer says that it is.
func (b *peerBook) learn(id, addr string) {
	if id == b.self.id || addr == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.agreed[id] == addr {
		delete(b.learned, id)
	} else {
		b.learned[id] = addr
	}
}

// moved returns where a peer is, if it is not where the cluster has agreed that it is.
func (b *peerBook) moved(id string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addr, ok := b.learned[id]
	return addr, ok
}

// answered notes an answer to a message of this leader, sent at the instant sent.
func (b *peerBook) answered(id string, req *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse, sent boottime.Instant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[id]
	if p == nil || p.term < req.Term {
		p = &progress{term: req.Term}
		b.peers[id] = p
	}
	if p.term != req.Term {
		return
	}
	if !p.answers {
		p.answers, p.since = true, sent
	}
	if !resp.Success {
		return
	}
	p.sent = max(p.sent, sent)
	if n := len(req.Entries); n > 0 {
		p.match = max(p.match, req.Entries[n-1].Index)
	} else {
		p.match = max(p.match, req.PrevLogEntry)
	}
	close(b.acked)
	b.acked = make(chan struct{})
}

// failed notes that a message to a peer got no answer.
func (b *peerBook) failed(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[id]; p != nil {
		p.answers = false
	}
}

// disowned notes whether a peer that was asked for a vote said that this node is no member.
func (b *peerBook) disowned(id string, yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delete(b.without, id); yes {
		b.without[id] = true
	}
	b.alone.Store(len(b.without) > 0)
}

// led notes that a leader counts on this node: it is a member.
func (b *peerBook) led() {
	if !b.alone.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.without)
	b.alone.Store(false)
}

// outcast reports whether a majority of the voters in c say that this node is no member. One alone may be
// behind.
func (b *peerBook) outcast(c hraft.Configuration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	voters, without := 0, 0
	for _, server := range c.Servers {
		if server.Suffrage == hraft.Voter {
			voters++
			if b.without[string(server.ID)] {
				without++
			}
		}
	}
	return without > voters/2
}

// get returns what is known of a peer in the leader's term.
func (b *peerBook) get(id string, term uint64) (progress, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[id]
	if p == nil || p.term != term {
		return progress{term: term}, false
	}
	return *p, true
}

// quorum reports whether a majority of the voters, this node included, acknowledged in term a message
// that was sent at from or later; and returns a channel that is closed when that may have changed.
//
// The library's VerifyLeader counts the answers of non-voters too, so it says nothing about majorities.
func (b *peerBook) quorum(c hraft.Configuration, term uint64, from boottime.Instant) (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	voters, votes := 0, 0
	for _, server := range c.Servers {
		if server.Suffrage != hraft.Voter {
			continue
		}
		voters++
		if p := b.peers[string(server.ID)]; string(server.ID) == b.self.id ||
			p != nil && p.term == term && p.sent >= from {
			votes++
		}
	}
	return votes > voters/2, b.acked
}

// heard returns how long ago a peer last acknowledged something in term.
func (b *peerBook) heard(id string, term uint64) (time.Duration, bool) {
	p, ok := b.get(id, term)
	if !ok || p.sent == 0 {
		return 0, false
	}
	return boottime.Since(p.sent), true
}
