package cache

import (
	"context"
	"slices"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// book is what the leader of one term knows of the others: who answered when, and how far they are.
type book struct {
	mu      sync.Mutex
	term    uint64
	peers   map[string]*peerState // by identity
	changed chan struct{}
	early   func(index uint64) // a peer has stored the log up to index
}

type peerState struct {
	host    string
	voter   bool
	match   uint64
	applied uint64
	heard   int64 // when the pulse was sent that it answered last; see now
	asked   int64 // when it asked for something last, for its own clients
	resting bool  // see rest
	rested  uint64
}

func newBook() *book { return &book{peers: map[string]*peerState{}, changed: make(chan struct{})} }

// begin starts a new term with nothing known.
func (b *book) begin(term uint64, early func(uint64)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.term, b.early = term, early
	clear(b.peers)
	b.wake()
}

// members takes raft's configuration over.
func (b *book) members(config hraft.Configuration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := map[string]bool{}
	for _, s := range config.Servers {
		id := string(s.ID)
		known[id] = true
		p := b.peers[id]
		if p == nil {
			p = &peerState{host: hostOf(s.Address)}
			b.peers[id] = p
		}
		p.voter = s.Suffrage == hraft.Voter
	}
	for id := range b.peers {
		if !known[id] {
			delete(b.peers, id)
		}
	}
}

func (b *book) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// appended notes that a peer has the log up to match, and has applied it up to applied.
func (b *book) appended(id string, term, match, applied uint64) {
	b.mu.Lock()
	p := b.peers[id]
	if term != b.term || p == nil {
		b.mu.Unlock()
		return
	}
	early := b.early
	if match <= p.match || !p.voter {
		early = nil
	}
	p.match = max(p.match, match)
	if applied > p.applied {
		p.applied = applied
		b.wake()
	}
	b.mu.Unlock()
	if early != nil {
		early(match)
	}
}

// heard notes that a peer answered the pulse that was sent at an instant.
func (b *book) heard(id string, term, applied uint64, sent int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[id]
	if term != b.term || p == nil {
		return
	}
	p.heard = max(p.heard, sent)
	p.applied = max(p.applied, applied)
	b.wake()
}

// asks notes that a peer asked for something.
func (b *book) asks(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[id]; p != nil {
		p.asked = now()
	}
}

// rest reports whether a peer that has the log up to match now may be left without the next entries for a moment: it has not asked
// for anything lately, and those that are not left alone are a majority, and as far as it was when this was asked last.
func (b *book) rest(id, self string, match uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[id]
	if p == nil {
		return false
	}
	need := match
	if p.resting {
		need = p.rested
	}
	have, voters := 0, 0
	for other, o := range b.peers {
		if !o.voter {
			continue
		}
		voters++
		if other == self || other != id && !o.resting && o.match >= need {
			have++
		}
	}
	p.resting, p.rested = have > voters/2 && now()-p.asked > int64(time.Second), match
	return p.resting
}

// get returns what is known of a peer.
func (b *book) get(id string) peerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.peers[id]; p != nil {
		return *p
	}
	return peerState{}
}

// since returns an instant since when so many of the hosts, this one included, have been heard, and a
// majority of the voters too; 0 if there is none.
func (b *book) since(self string, hosts []string, quorum int) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, votes, voters := map[string]int64{}, []int64{}, 0
	for id, p := range b.peers {
		t := p.heard
		if id == self {
			t = now()
		}
		if p.voter {
			voters++
			votes = append(votes, t)
		}
		at[p.host] = max(at[p.host], t)
	}
	var times []int64
	for _, h := range hosts {
		times = append(times, at[h])
	}
	return min(nth(times, quorum), nth(votes, voters/2+1))
}

// nth returns the nth largest of some times, 0 if there are not so many.
func nth(times []int64, n int) int64 {
	if n < 1 || len(times) < n {
		return 0
	}
	slices.Sort(times)
	return times[len(times)-n]
}

// connected returns the hosts that were heard since an instant, in the list's order; of voters only, or of all.
func (b *book) connected(self string, hosts []string, since int64, voters bool) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	there := map[string]bool{}
	for id, p := range b.peers {
		if id == self || (p.voter || !voters) && p.heard >= since {
			there[p.host] = true
		}
	}
	var list []string
	for _, h := range hosts {
		if there[h] {
			list = append(list, h)
		}
	}
	return list
}

// appliedBy reports whether so many hosts have applied the log up to index; this one has.
func (b *book) appliedBy(self string, hosts []string, quorum int, index uint64) (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var count int
	var done [maxHosts]bool
	for id, p := range b.peers {
		if id != self && p.applied < index {
			continue
		}
		if i := slices.Index(hosts, p.host); i >= 0 && !done[i] {
			done[i] = true
			count++
		}
	}
	return count >= quorum, b.changed
}

// await returns when ok holds.
func (b *book) await(ctx context.Context, ok func() (bool, <-chan struct{})) error {
	for {
		done, changed := ok()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
