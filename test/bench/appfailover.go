package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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

// appFailover is a planned switchover and a crash of the active node's process under load, with a cold and a warm application.
func appFailover(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Applications: switchover and crash",
		How: fmt.Sprintf("An application that takes %v to start, run by Locum: cold (on the active node only) and warm (on every node). 500 requests/s to it, half GET and half POST, "+
			"open loop, one attempt per request; whatever is not a 2xx has failed. Planned: `step-down`, load to all nodes. Crash: kill -9 of the active node's process, load to the others.", startTime),
		Header: []string{"application", "what", "rounds", "gap", "requests", "failed GET", "failed POST"}}
	for _, standby := range []string{"cold", "warm"} {
		if err := appFailovers(ctx, o, s, standby); err != nil {
			return s, fmt.Errorf("%s: %w", standby, err)
		}
	}
	return s, nil
}

func appFailovers(ctx context.Context, o options, s *Section, standby string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Options{Dir: o.dir + "-" + standby, LogLevel: "warn", Extra: func(n *cluster.Node) string {
		return fmt.Sprintf("application \"app\" {\n  command = [%q, \"role\", \"slow\", \"%s:9000\"]\n  upstream = \"http://%s:9000\"\n  listen = \"%s:%d\"\n  standby = %q\n}\n",
			self, n.IP, n.IP, n.IP, appPort, standby)
	}})
	if err != nil {
		return err
	}
	defer c.Close()
	var planned, crashed appRounds
	for moved, rounds := 0, o.rounds(10); rounds > 0; rounds-- {
		round, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err := planned.round(round, c, c.Nodes, func(active *cluster.Node) error {
			return c.StepDown(round, active, "", 30*time.Second)
		})
		if err == nil {
			err = crashed.crash(round, c)
		}
		cancel()
		if errors.Is(err, fault.ErrMoved) && moved < 5 { // the machine stalled: nothing was measured
			moved, rounds = moved+1, rounds+1
			continue
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, c.Tails(10))
		}
	}
	start := time.Duration(0)
	if standby == "cold" {
		start = startTime
	}
	for _, r := range []struct {
		what   string
		rounds *appRounds
		limit  time.Duration
	}{{"switchover", &planned, 100*time.Millisecond + start}, {"crash", &crashed, 500*time.Millisecond + start}} {
		s.Rows = append(s.Rows, []string{standby, r.what, fmt.Sprint(len(r.rounds.gaps)), Show(r.rounds.gaps, millis), fmt.Sprint(r.rounds.sent), fmt.Sprint(r.rounds.gets), fmt.Sprint(r.rounds.posts)})
		for kind, n := range r.rounds.kinds {
			s.Notes = append(s.Notes, fmt.Sprintf("- %s, %s: %d × %s", standby, r.what, n, kind))
		}
		failed := r.rounds.gets
		name := "failed GETs"
		if r.what == "switchover" {
			failed, name = failed+r.rounds.posts, "failed requests"
		}
		s.Targets = append(s.Targets,
			Target{fmt.Sprintf("%s application, %s: %s", standby, r.what, name), "0", fmt.Sprint(failed), failed == 0},
			Target{fmt.Sprintf("%s application, %s: gap", standby, r.what), "≤ " + millis(r.limit), Show(r.rounds.gaps, millis), r.rounds.gaps.Median() <= r.limit})
	}
	return nil
}

// appRounds are what several rounds of one kind gave.
type appRounds struct {
	gaps              Rounds[time.Duration]
	sent, gets, posts int // gets and posts: failed
	kinds             map[string]int
}

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
		a.kinds[fmt.Sprintf("%s: %d %.160s %v", v.Method, v.Status, v.Body, v.Err)]++
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

// crash kills the active node's process, with load to the others, and starts it again.
func (a *appRounds) crash(ctx context.Context, c *cluster.Cluster) error {
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
	err = a.round(ctx, c, others, func(*cluster.Node) error { active.Kill(); return nil })
	if !active.Running() {
		err = errors.Join(err, active.Start(), c.WaitHealthy(ctx))
	}
	return err
}
