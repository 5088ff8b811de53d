package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// hello is what a node says of itself on the connection that it forwards over, at first and with every echo. A
// field more is no new format.
type hello struct {
	Format      int    `json:"format"`
	ID          string `json:"id"`
	Name        string `json:"name"`
	APIAddr     string `json:"api_addr"`
	ClusterAddr string `json:"cluster_addr"`
	Version     string `json:"version"`
	Priority    int    `json:"priority"`
	Candidate   bool   `json:"candidate"`
	Eligible    bool   `json:"eligible,omitempty"`    // configured as a candidate
	OrdersKept  uint64 `json:"orders_kept,omitempty"` // the revision of the orders that it keeps to
	Term        uint64 `json:"term"`
	Reason      string `json:"reason,omitempty"`    // why it is not active
	Unfit       string `json:"unfit,omitempty"`     // why it could not be active at once
	Incarnation string `json:"incarnation"`         // what the names of its slots begin with
	Authority   string `json:"authority,omitempty"` // marks the cluster authorities that it trusts and shows

	// Orders are what operators have ordered: from the active node only.
	Orders *orders `json:"orders,omitempty"`

	// Candidates are the standbys that could take over: from the active node only.
	Candidates []rival `json:"candidates,omitempty"`
}

// rival is a node that may compete for the lock.
type rival struct {
	ID       string `json:"id"`
	Priority int    `json:"priority"`
	Version  string `json:"version,omitempty"`
}

const helloFormat = 1

// member is a standby as the active node knows it.
type member struct {
	hello
	echo time.Time     // when it was heard from last
	rtt  time.Duration // how long its last echo took
	skew time.Duration // its wall clock minus this one's
}

const (
	memberGone = 10 * time.Second // a standby that was silent for so long is not listed any more
	memberFit  = 3 * time.Second  // nor chosen as successor after this
)

func (m member) rival() rival { return rival{m.ID, m.Priority, m.Version} }

// readHello reads what the node with this identity says of itself. A newer format may mean something else by the same fields.
func readHello(peerID string, data []byte) (hello, error) {
	var h hello
	if err := json.Unmarshal(data, &h); err != nil {
		return hello{}, err
	}
	if h.Format > helloFormat {
		return hello{}, fmt.Errorf("a newer version's format %d; this one knows %d: upgrade this node", h.Format, helloFormat)
	}
	if h.ID != peerID {
		return hello{}, fmt.Errorf("it calls itself %q", h.ID)
	}
	return h, nil
}

// members are the standbys that the active node hears from.
type members struct {
	mu      sync.Mutex
	byID    map[string]member
	strange map[string]string // what was last not understood of whom
}

// heard notes an echo, and reports whether the rivals are others now.
func (m *members) heard(h hello, rtt, skew time.Duration) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID == nil {
		m.byID = map[string]member{}
	}
	was, now := m.byID[h.ID], member{hello: h, echo: time.Now(), rtt: rtt, skew: skew}
	m.byID[h.ID] = now
	return was.Candidate != now.Candidate || now.Candidate && was.rival() != now.rival()
}

// strangers bounds for how many nodes it is remembered that they were not understood.
const strangers = 100

// news reports whether it was not known yet that a node is not understood, and why: it is said once, not at every echo.
func (m *members) news(peerID string, why error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.strange[peerID] == why.Error() {
		return false
	}
	if m.strange == nil || len(m.strange) >= strangers {
		m.strange = map[string]string{}
	}
	m.strange[peerID] = why.Error()
	return true
}

// list returns those heard from within d.
func (m *members) list(d time.Duration) []member {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []member
	for id, one := range m.byID {
		switch age := time.Since(one.echo); {
		case age < d:
			out = append(out, one)
		case age > memberGone:
			delete(m.byID, id)
		}
	}
	return out
}

// candidates are those that may take over.
func (m *members) candidates() []member {
	var out []member
	for _, one := range m.list(memberFit) {
		if one.Candidate {
			out = append(out, one)
		}
	}
	return out
}

// fit are the candidates that could be active at once; if there is none, all.
func (m *members) fit() []member {
	all := m.candidates()
	fit := slices.DeleteFunc(slices.Clone(all), func(one member) bool { return one.Unfit != "" })
	if len(fit) == 0 {
		return all
	}
	return fit
}

// rivals are the candidates as they are told to the standbys.
func (m *members) rivals() []rival {
	var out []rival
	for _, one := range m.candidates() {
		out = append(out, one.rival())
	}
	return out
}

// find returns the member of this name or identity.
func (m *members) find(nameOrID string) (member, bool) {
	for _, one := range m.list(memberGone) {
		if one.ID == nameOrID || one.Name == nameOrID {
			return one, true
		}
	}
	return member{}, false
}
