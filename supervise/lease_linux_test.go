package supervise

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// P2: "also when the node is frozen: the guardian holds the deadline on a CLOCK_BOOTTIME timer of its own and kills".
func TestNodeFrozen(t *testing.T) {
	const ttl = 1500 * time.Millisecond
	n := startNode(t, ContainAuto, ttl, 0, "SUPERVISE_TEST_RENEW=1")
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.awaitEnd(t, boottime.Now().Add(ttl))
	if _, err := os.Stat(n.released); err == nil {
		t.Error("the lock of a node that lives was released")
	}
}

// awaitEnd waits for the tree's end and fails if it was seen to live at the instant or later. When this process, which others keep busy, notices
// the end says nothing.
func (n *nodeProcess) awaitEnd(t *testing.T, by boottime.Instant) {
	t.Helper()
	var alive boottime.Instant
	await(t, "the tree's end", 10*time.Second, func() bool {
		now := boottime.Now()
		if len(marked(n.marker)) == 0 {
			return true
		}
		alive = now
		return false
	})
	if alive >= by {
		t.Errorf("it lived %s after the lock can have run out", alive.Sub(by))
	}
}

// A guardian that did not run for a while reads what the node has said meanwhile before it obeys its timer: of the leases that wait, one
// has run out and the next has not (P2).
func TestLeaseUnread(t *testing.T) {
	g := guardian(t)
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := g.(*Guardian).cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	grant := physical.Grant{Record: physical.Record{Term: 7}, TTL: time.Second}
	g.Lease(grant, boottime.Now().Add(time.Minute))
	p, err := start(t, g, Command{Args: []string{"sleep", "3600"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // whatever it would look at first
		over := boottime.Now().Add(600 * time.Millisecond)
		g.Lease(grant, over) // its timer stands there now
		pause := time.NewTimer(50 * time.Millisecond)
		<-pause.C
		signal(syscall.SIGSTOP)
		g.Lease(grant, over)
		g.Lease(grant, boottime.Now().Add(time.Minute))
		await(t, "the lease's end", time.Minute, func() bool { return boottime.Now() > over })
		signal(syscall.SIGCONT)
		q, err := start(t, g, Command{Args: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		done(t, q)
	}
	select {
	case <-p.Done():
		t.Errorf("ended under a lease that the node had prolonged in time: %v", p.Exit())
	default:
	}
	p.Kill()
	done(t, p)
}

// The deadline is kept for a node that lives and does not renew.
func TestLeaseOver(t *testing.T) {
	n := startNode(t, ContainAuto, 3*time.Second, 0)
	n.awaitEnd(t, n.expiry)
	if !n.lines.Scan() || !strings.Contains(n.lines.Text(), "because the lease ran out") {
		t.Errorf("the node says %q", n.lines.Text())
	}
}
