package raft

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// The gate is put between a raft that does whatever raft's rules allow, at any moment, and a network that
// delays, reorders, repeats and loses. No two nodes' leases may ever overlap (P2, P4).
// What the gate is told and what raft decides are separate steps, in any interleaving, as they are
// between raft's main loop, its heartbeat goroutine and the connections.

const modelTimeout = 400 * time.Millisecond

type modelNode struct {
	id      int
	gate    *gate
	life    int // counts restarts: answers to an earlier life are lost
	term    uint64
	voted   map[uint64]int // durable
	role    string         // "follower", "candidate", "leader"
	votes   map[int]bool
	claimed bool // candidate because of a handover
	round   int
	rounds  map[int]*modelRound

	tainted    uint64
	leaseTerm  uint64
	leaseUntil boottime.Instant
}

type modelRound struct {
	start boottime.Instant
	acks  map[int]bool
}

type modelMsg struct {
	kind     string
	from, to int
	life     int // of the receiver, for answers and local steps
	term     uint64
	transfer bool
	round    int
}

type model struct {
	r     *rand.Rand
	now   boottime.Instant
	nodes []*modelNode
	msgs  []modelMsg
	stats map[string]int
	trace []string
	bad   string
	weak  func(*modelNode) // breaks the gate on purpose, to see that the model notices
}

func newModel(seed uint64, n int) *model {
	m := &model{r: rand.New(rand.NewPCG(seed, 1)), now: boottime.Instant(time.Hour), stats: map[string]int{}}
	for i := range n {
		m.nodes = append(m.nodes, &modelNode{
			id: i, gate: newGate(func() boottime.Instant { return m.now }, modelTimeout, false),
			role: "follower", voted: map[uint64]int{}, rounds: map[int]*modelRound{},
		})
	}
	return m
}

func (m *model) log(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf("%v ", time.Duration(m.now)-time.Hour)+fmt.Sprintf(format, args...))
}

func (m *model) send(msg modelMsg) {
	if m.r.IntN(20) == 0 {
		return
	}
	m.msgs = append(m.msgs, msg)
	if m.r.IntN(20) == 0 {
		m.msgs = append(m.msgs, msg) // twice
	}
}

func (m *model) majority(n int) bool { return n > len(m.nodes)/2 }

// elect makes a node stand for the next term.
func (m *model) elect(n *modelNode, claimed bool) {
	n.term++
	n.voted[n.term] = n.id
	n.role, n.votes, n.claimed = "candidate", map[int]bool{n.id: true}, claimed
	m.log("node %d stands for %d (handover %v)", n.id, n.term, claimed)
	for _, peer := range m.nodes {
		if peer == n {
			continue
		}
		if ok, transfer := n.gate.ask(n.term, claimed); ok {
			m.send(modelMsg{kind: "vote?", from: n.id, to: peer.id, term: n.term, transfer: transfer})
		}
	}
}

// beat begins a round of heartbeats, from whose start a lease may count.
func (m *model) beat(n *modelNode) {
	n.round++
	n.rounds[n.round] = &modelRound{start: m.now, acks: map[int]bool{n.id: true}}
	for _, peer := range m.nodes {
		if peer != n {
			m.send(modelMsg{kind: "beat?", from: n.id, to: peer.id, life: n.life, term: n.term, round: n.round})
		}
	}
}

func (m *model) deliver(msg modelMsg) {
	n := m.nodes[msg.to]
	switch msg.kind {
	case "vote?":
		if ok, _ := n.gate.wouldVote(msg.term, msg.transfer); !ok || msg.term < n.term {
			return
		}
		if msg.term > n.term {
			n.term, n.role = msg.term, "follower"
		}
		if who, ok := n.voted[msg.term]; ok && who != msg.from {
			return
		}
		n.voted[msg.term] = msg.from
		m.msgs = append(m.msgs, modelMsg{kind: "release vote", from: msg.from, to: n.id, life: n.life, term: msg.term, transfer: msg.transfer})
	case "release vote":
		if msg.life == n.life && n.gate.vote(msg.term, msg.transfer) {
			m.log("node %d votes for %d in %d (handover %v)", n.id, msg.from, msg.term, msg.transfer)
			m.send(modelMsg{kind: "vote", from: n.id, to: msg.from, life: m.nodes[msg.from].life, term: msg.term})
		}
	case "vote":
		if msg.life != n.life || n.role != "candidate" || n.term != msg.term {
			return
		}
		if n.votes[msg.from] = true; m.majority(len(n.votes)) {
			n.role = "leader"
			m.stats["leaders"]++
			m.log("node %d leads %d", n.id, n.term)
			m.beat(n)
		}
	case "beat?":
		if msg.term < n.term {
			return
		}
		if msg.term > n.term || n.role != "follower" {
			n.term, n.role = msg.term, "follower"
		}
		m.msgs = append(m.msgs, modelMsg{kind: "release ack", from: msg.from, to: n.id, life: n.life, term: msg.term, round: msg.round})
	case "release ack":
		if msg.life != n.life {
			return
		}
		if _, ok := n.gate.acknowledge(msg.term); ok {
			m.send(modelMsg{kind: "ack", from: n.id, to: msg.from, life: m.nodes[msg.from].life, term: msg.term, round: msg.round})
		}
	case "ack":
		m.acked(n, msg)
	case "handover":
		if msg.term == n.term && n.gate.handedOver(msg.term) {
			m.msgs = append(m.msgs, modelMsg{kind: "stand", to: n.id, life: n.life})
		}
	case "stand":
		if msg.life == n.life {
			m.elect(n, true)
		}
	case "waive":
		n.gate.waive(msg.term)
	}
}

// acked is Acquire and Renew: a majority acknowledged in this term since the start of the round.
func (m *model) acked(n *modelNode, msg modelMsg) {
	round := n.rounds[msg.round]
	if msg.life != n.life || n.role != "leader" || n.term != msg.term || round == nil || n.tainted == n.term {
		return
	}
	round.acks[msg.from] = true
	until := round.start.Add(modelTimeout)
	if !m.majority(len(round.acks)) || until <= m.now {
		return
	}
	if _, ok := n.gate.acknowledge(n.term); !ok {
		return
	}
	if n.leaseTerm != n.term {
		n.leaseTerm, n.leaseUntil = n.term, 0
		m.stats["leases"]++
	}
	n.leaseUntil = max(n.leaseUntil, until)
	m.log("node %d holds the lock in %d until %v", n.id, n.term, time.Duration(n.leaseUntil)-time.Hour)
	for _, other := range m.nodes {
		if other != n && other.leaseUntil > m.now {
			m.bad = fmt.Sprintf("node %d (raft term %d) and node %d (raft term %d) hold the lock at %v",
				n.id, n.leaseTerm, other.id, other.leaseTerm, time.Duration(m.now)-time.Hour)
		}
	}
}

// step does one thing that can happen.
func (m *model) step() {
	n := m.nodes[m.r.IntN(len(m.nodes))]
	switch k := m.r.IntN(100); {
	case k < 60:
		if len(m.msgs) > 0 {
			i := m.r.IntN(len(m.msgs))
			if m.r.IntN(3) > 0 {
				i = max(0, len(m.msgs)-1-m.r.IntN(4)) // mostly the newest: things get done
			}
			msg := m.msgs[i]
			m.msgs = append(m.msgs[:i], m.msgs[i+1:]...)
			m.deliver(msg)
		}
	case k < 75:
		m.now = m.now.Add(time.Duration(m.r.IntN(60)) * time.Millisecond)
	case k < 77:
		m.now = m.now.Add(time.Duration(m.r.IntN(800)) * time.Millisecond)
	case k < 85:
		if n.role == "leader" {
			m.beat(n)
		}
	case k < 92:
		if n.role != "leader" {
			m.elect(n, false)
		}
	case k < 95:
		if n.role == "leader" { // gives the lease up, and hands over or not
			n.leaseUntil, n.rounds = 0, map[int]*modelRound{}
			n.gate.waive(n.term)
			m.log("node %d gives the lock up in %d", n.id, n.term)
			if m.r.IntN(3) > 0 {
				n.tainted = n.term
				m.stats["handovers"]++
				m.send(modelMsg{kind: "handover", from: n.id, to: m.nodes[m.r.IntN(len(m.nodes))].id, term: n.term})
			}
		}
	case k < 96:
		m.restart(n)
	default:
		if n.role == "leader" && m.r.IntN(2) == 0 {
			n.role = "follower" // steps down, for whatever reason
		}
	}
	if m.weak != nil {
		m.weak(n)
	}
}

// restart forgets all that is not durable. What the node held stays held: its application may live on.
// Now and then the guardian ends it, and tells the others.
func (m *model) restart(n *modelNode) {
	m.stats["restarts"]++
	m.log("node %d restarts", n.id)
	wasLeading, term := n.role == "leader", n.term
	n.life++
	n.role, n.rounds, n.tainted = "follower", map[int]*modelRound{}, 0
	n.gate = newGate(func() boottime.Instant { return m.now }, modelTimeout, true)
	if wasLeading && m.r.IntN(2) == 0 {
		n.leaseUntil = 0
		for _, peer := range m.nodes {
			m.send(modelMsg{kind: "waive", to: peer.id, term: term})
		}
	}
}

func runModel(seed uint64, steps int, weak func(*modelNode)) *model {
	m := newModel(seed, 3+2*int(seed%2))
	m.weak = weak
	for range steps {
		if m.step(); m.bad != "" {
			break
		}
		if len(m.msgs) > 200 {
			m.msgs = m.msgs[100:]
		}
	}
	return m
}

func TestGateLeasesNeverOverlap(t *testing.T) {
	runs := 20000
	if testing.Short() {
		runs = 2000
	}
	stats := map[string]int{}
	for seed := range uint64(runs) {
		m := runModel(seed, 400, nil)
		if m.bad != "" {
			tail := m.trace[max(0, len(m.trace)-60):]
			for _, line := range tail {
				t.Log(line)
			}
			t.Fatalf("seed %d: %s", seed, m.bad)
		}
		for k, v := range m.stats {
			stats[k] += v
		}
	}
	t.Logf("%d schedules: %v", runs, stats)
	for _, k := range []string{"leaders", "leases", "handovers", "restarts"} {
		if stats[k] < runs/10 {
			t.Errorf("only %d %s: the model is too tame to show anything", stats[k], k)
		}
	}
}

// The model is worth something only if it notices a gate that is broken.
func TestGateModelNoticesABrokenGate(t *testing.T) {
	for name, weak := range map[string]func(*modelNode){
		"promises nothing": func(n *modelNode) { n.gate.until = 0 },
		"forgets votes":    func(n *modelNode) { n.gate.voteTerm = 0 },
		"promises half as long": func(n *modelNode) {
			n.gate.timeout = modelTimeout / 2
		},
		"takes any handover for the present one": func(n *modelNode) {
			if n.claimed {
				n.gate.transferTerm = n.term
			}
			n.tainted = 0
		},
		"holds the lock again after a handover": func(n *modelNode) { n.tainted = 0 },
		"forgets its promise over a restart": func(n *modelNode) {
			if n.gate.ackTerm == 0 {
				n.gate.until = 0
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(30000) {
				if runModel(seed, 400, weak).bad != "" {
					t.Logf("noticed after %d schedules", seed+1)
					return
				}
			}
			t.Error("not noticed")
		})
	}
}
