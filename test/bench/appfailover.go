package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/fault"
	"github.com/locum-ha/locum/test/load"
)

// startTime is how long the application of this part takes to start.
const startTime = 100 * time.Millisecond

// slowStarter is that application: it answers with method and path.
func slowStarter(ctx context.Context, address string) error {
	settled(ctx, startTime)
	return serve(ctx, &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
	})}, false)
}

// appFailover is a planned switchover, a crash of the active node's process and the loss of its machine under load, with a cold and
// a warm application, on the embedded store.
func appFailover(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Applications: switchover and crash",
		How: fmt.Sprintf("An application that takes %v to start, run by Locum: cold (on the active node only) and warm (on every node). 500 requests/s to it, half GET and half POST, "+
			"open loop, one attempt per request; whatever is not a 2xx has failed. Planned: `step-down`, load to all nodes. Crash: kill -9 of the active node's process. Loss: kill -9 of its whole "+
			"process tree, the guardian and the application included. In both the load goes to the others. The gap is the longest time between two successes.", startTime),
		Header: []string{"store", "application", "what", "rounds", "gap", "requests", "failed GET", "failed POST"}}
	for _, standby := range []string{"cold", "warm"} {
		f := &appFault{store: "raft", standby: standby, planned: o.rounds(5), crashes: o.rounds(5), losses: o.rounds(3), lossLimit: time.Second}
		if err := f.run(ctx, cluster.Options{Dir: o.dir + "-" + standby}, s); err != nil {
			return s, fmt.Errorf("%s: %w", standby, err)
		}
	}
	return s, nil
}

// appFault is what is done to one application on one store, and how often.
type appFault struct {
	store, standby           string
	planned, crashes, losses int
	lossLimit                time.Duration // without the application's start
}

func (f *appFault) run(ctx context.Context, options cluster.Options, s *Section) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	options.LogLevel = "warn"
	options.Extra = func(n *cluster.Node) string {
		return fmt.Sprintf("application \"app\" {\n  command = [%q, \"role\", \"slow\", \"%s:9000\"]\n  upstream = \"http://%s:9000\"\n  listen = \"%s:%d\"\n  standby = %q\n}\n",
			self, n.IP, n.IP, n.IP, appPort, f.standby)
	}
	c, err := cluster.Start(ctx, options)
	if err != nil {
		return err
	}
	defer c.Close()
	planned, crashed, lost := &appRounds{}, &appRounds{}, &appRounds{}
	for n := range max(f.planned, f.crashes, f.losses) {
		var errs []error
		if n < f.planned {
			errs = append(errs, again(ctx, func(ctx context.Context) error {
				return planned.round(ctx, c, c.Nodes, func(active *cluster.Node) error { return c.StepDown(ctx, active, "", 30*time.Second) })
			}))
		}
		if n < f.crashes {
			errs = append(errs, again(ctx, func(ctx context.Context) error { return crashed.crash(ctx, c, (*cluster.Node).Kill) }))
		}
		if n < f.losses {
			errs = append(errs, again(ctx, func(ctx context.Context) error { return lost.crash(ctx, c, (*cluster.Node).KillTree) }))
		}
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("%w\n%s", err, c.Tails(10))
		}
	}
	start := time.Duration(0)
	if f.standby == "cold" {
		start = startTime
	}
	f.report(s, "switchover", planned, 100*time.Millisecond+start)
	f.report(s, "crash", crashed, 500*time.Millisecond+start)
	f.report(s, "loss", lost, f.lossLimit+start)
	return nil
}

// again has a round anew when the machine stalled and nothing was measured.
func again(ctx context.Context, round func(ctx context.Context) error) error {
	for moved := 0; ; moved++ {
		limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err := round(limited)
		cancel()
		if !errors.Is(err, fault.ErrMoved) || moved == 5 {
			return err
		}
	}
}

func (f *appFault) report(s *Section, what string, r *appRounds, limit time.Duration) {
	if len(r.gaps) == 0 {
		return
	}
	s.Rows = append(s.Rows, []string{f.store, f.standby, what, fmt.Sprint(len(r.gaps)), Show(r.gaps, millis), fmt.Sprint(r.sent), fmt.Sprint(r.gets), fmt.Sprint(r.posts)})
	for kind, n := range r.kinds {
		s.Notes = append(s.Notes, fmt.Sprintf("- %s, %s, %s: %d × %s", f.store, f.standby, what, n, kind))
	}
	failed, name := r.gets, "failed GETs"
	if what == "switchover" {
		failed, name = failed+r.posts, "failed requests"
	}
	s.Targets = append(s.Targets, Target{fmt.Sprintf("%s, %s application, %s: %s", f.store, f.standby, what, name), "0", fmt.Sprint(failed), failed == 0},
		Target{fmt.Sprintf("%s, %s application, %s: gap", f.store, f.standby, what), "≤ " + millis(limit), Show(r.gaps, millis), r.gaps.Median() <= limit})
}

// appRounds are what several rounds of one kind gave.
type appRounds struct {
	gaps              Rounds[time.Duration]
	sent, gets, posts int // gets and posts: failed
	kinds             map[string]int
}

// endpoints are those of a connection, in an error's text.
var endpoints = regexp.MustCompile(`[0-9.]+:[0-9]+(-(\\u003e|>)[0-9.]+:[0-9]+)?`)

// round has something done to the active node under load, and waits until another serves.
func (a *appRounds) round(ctx context.Context, c *cluster.Cluster, nodes []*cluster.Node, do func(active *cluster.Node) error) error {
	active, err := c.WaitActive(ctx, nil)
	if err != nil {
		return err
	}
	var addresses []string
	for _, n := range nodes {
		addresses = append(addresses, fmt.Sprintf("%s:%d", n.IP, appPort))
	}
	for _, addr := range addresses {
		if err := cluster.Poll(ctx, addr+" leads to the application", func() error { return ask(ctx, addr) }); err != nil {
			return err
		}
	}
	before, err := c.Leader(ctx, nodes[0])
	if err != nil {
		return err
	}
	tr := load.Drive(addresses, 500)
	settled(ctx, 500*time.Millisecond)
	err = do(active)
	if err == nil {
		_, err = c.WaitActive(ctx, active)
	}
	settled(ctx, time.Second)
	visits := tr.Stop()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if after, err := c.Leader(ctx, n); err == nil && after.Term > before.Term+1 {
			return fault.ErrMoved
		}
	}
	a.gaps = append(a.gaps, load.LongestGap(visits))
	a.sent += len(visits)
	for _, v := range visits {
		switch {
		case v.OK():
			continue
		case v.Method == http.MethodGet:
			a.gets++
		default:
			a.posts++
		}
		if a.kinds == nil {
			a.kinds = map[string]int{}
		}
		a.kinds[fmt.Sprintf("%s: %d %.160s %v", v.Method, v.Status, endpoints.ReplaceAllString(string(v.Body), "…"), v.Err)]++
	}
	return nil
}

func ask(ctx context.Context, addr string) error {
	client := load.NewClient(addr, "")
	defer client.Close()
	once, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	a, err := client.Do(once, http.MethodGet, "/", nil)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("status %d", a.Status)
	}
	return err
}

// crash kills something of the active node, with load to the others, and starts it again.
func (a *appRounds) crash(ctx context.Context, c *cluster.Cluster, kill func(*cluster.Node)) error {
	active, err := c.WaitActive(ctx, nil)
	if err != nil {
		return err
	}
	var others []*cluster.Node
	for _, n := range c.Nodes {
		if n != active {
			others = append(others, n)
		}
	}
	err = a.round(ctx, c, others, func(*cluster.Node) error { kill(active); return nil })
	if !active.Running() {
		err = errors.Join(err, active.Start(), c.WaitHealthy(ctx))
	}
	return err
}
