package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/front"
	"github.com/locum-ha/locum/test/load"
)

var (
	long  = flag.Bool("long", false, "the full rounds and durations: 10 000 reads, freezes of 30 s, 1 GiB")
	chaos = flag.Duration("chaos", 45*time.Second, "how long the chaos test lasts")
)

// within is a context that ends with the test or after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, context.DeadlineExceeded)
	t.Cleanup(cancel)
	return ctx
}

// clientsOf returns a client per node, closed with the test.
func clientsOf(t *testing.T, c *cluster.Cluster) []*load.Client {
	t.Helper()
	clients := make([]*load.Client, len(c.Nodes))
	for i, n := range c.Nodes {
		clients[i] = load.NewClient(n.Address(), c.Token)
		t.Cleanup(clients[i].Close)
	}
	return clients
}

// calm is for what is planned: raft's times are three times as long, so that a machine that is busy with other things does not turn it
// into a failover, in which P5 promises nothing.
var calm = cluster.Options{Performance: "3"}

// findActive returns the node that is active, and its term, as soon as there is one: on a busy machine its answer may take more than one asking.
func findActive(t *testing.T, c *cluster.Cluster) (n *cluster.Node, term uint64) {
	t.Helper()
	err := cluster.Poll(within(t, 30*time.Second), "a node is active", func() error {
		if n, term = c.Active(t.Context()); n == nil {
			return errors.New("none is")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, term
}

// quick judges answers that come from memory: at once, but for a few that the machine delays, and none hangs.
type quick struct{ late int }

func (q *quick) enough(took time.Duration) bool {
	if took > 250*time.Millisecond {
		q.late++
	}
	return q.late <= 3 && took <= 2*time.Second
}

// after waits: part of a scenario, never for something to become true.
func after(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// TestMain lets the test binary be one of its own servers: an active node or a standby around streamHandler.
func TestMain(m *testing.M) {
	role, rest, _ := strings.Cut(os.Getenv("LOCUM_TEST_FRONT"), " ")
	if role == "" {
		os.Exit(m.Run())
	}
	var address front.Address
	_, err := fmt.Sscan(rest, &address.HTTP, &address.Cluster, &address.Dir)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if role == "active" {
			err = front.Active(ctx, address, streamHandler())
		} else {
			err = front.Standby(ctx, address)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
