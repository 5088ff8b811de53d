package fault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// Load is what clients do meanwhile. The zero value is 500 requests/s, half of them POST, for a second before
// and a second after.
type Load struct {
	Rate          int
	Before, After time.Duration
}

// ErrMoved: leadership moved by itself before the fault came, as it does when a loaded machine stalls a node for longer
// than its lease.
var ErrMoved = errors.New("no longer active before the fault")

// Outcome is what the clients saw of one fault.
type Outcome struct {
	Report    *load.Report
	Twice     load.Twice
	Gap       time.Duration // the longest time between two successes, of any method, from just before the fault on
	NewActive time.Duration // from the fault until another node said that it is active
	Waiting   *Waiting      // of a freeze
}

// String is several lines.
func (o *Outcome) String() string {
	s := fmt.Sprintf("gap %v, another node active after %v\n%v", o.Gap.Round(time.Millisecond), o.NewActive.Round(time.Millisecond), o.Report)
	s += fmt.Sprintf("writes: %d, found %d, twice %v, lost %v\n", o.Twice.Writes, o.Twice.Applied, o.Twice.Twice, o.Twice.Lost)
	if o.Waiting != nil {
		s += o.Waiting.String()
	}
	return s
}

// session is a load that runs.
type session struct {
	c       *cluster.Cluster
	l       Load
	clients []*load.Client
	runner  *load.Runner
	mark    time.Duration // when the fault came
}

func begin(c *cluster.Cluster, l Load, nodes []*cluster.Node) *session {
	if l.Rate == 0 {
		l.Rate = 500
	}
	if l.Before == 0 {
		l.Before = time.Second
	}
	if l.After == 0 {
		l.After = time.Second
	}
	s := &session{c: c, l: l}
	plan := load.Plan{Rate: l.Rate, Writes: .5, Prefix: unique(), Value: 256}
	for _, n := range nodes {
		client := load.NewClient(n.Address(), c.Token)
		s.clients = append(s.clients, client)
		plan.Targets = append(plan.Targets, load.Target{Name: n.Name, Client: client})
	}
	s.runner = load.Run(plan)
	return s
}

// hit notes the instant of the fault, after the time before it. It is an error if the node that the fault is for is not
// the active one any more; the load is over then.
func (s *session) hit(ctx context.Context, victim *cluster.Node) error {
	err := pause(ctx, s.l.Before)
	if active, _ := s.c.Active(ctx); err == nil && active != victim {
		err = fmt.Errorf("%w: %s", ErrMoved, victim.Name)
	}
	if err != nil {
		s.abandon()
	}
	s.mark = s.runner.Since()
	return err
}

// end stops the load after the time after the fault, and looks at what was written.
func (s *session) end(ctx context.Context, out *Outcome) error {
	_ = pause(ctx, s.l.After)
	until := s.runner.Since()
	out.Report = s.runner.Stop()
	out.Gap = out.Report.Gap("", max(0, s.mark-500*time.Millisecond), until)
	var err error
	out.Twice, err = out.Report.Verify(ctx, s.clients[0])
	s.close()
	return err
}

// abandon stops the load when something else went wrong.
func (s *session) abandon() {
	s.runner.Stop()
	s.close()
}

func (s *session) close() {
	for _, client := range s.clients {
		client.Close()
	}
}

// unique is a name that no other run has.
func unique() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
