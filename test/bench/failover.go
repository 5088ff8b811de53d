package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/fault"
)

// failovers is what several rounds of one fault gave.
type failovers struct {
	gaps, active Rounds[time.Duration]
	latency      Rounds[time.Duration] // the slowest success
	sent         int
	gets, posts  int // failed
	twice, lost  int
	kinds        map[string]int
}

func (f *failovers) add(o *fault.Outcome) {
	f.gaps = append(f.gaps, o.Gap)
	f.active = append(f.active, o.NewActive)
	f.latency = append(f.latency, o.Report.Latency("", 1))
	f.sent += len(o.Report.Records)
	f.gets += o.Report.Failed(http.MethodGet)
	f.posts += o.Report.Failed(http.MethodPost)
	f.twice += len(o.Twice.Twice)
	f.lost += len(o.Twice.Lost)
	for kind, n := range o.Report.Kinds() {
		if f.kinds == nil {
			f.kinds = map[string]int{}
		}
		f.kinds[kind] += n
	}
}

func (f *failovers) section(title, how string) *Section {
	s := &Section{Title: title, How: how,
		Header: []string{"rounds", "gap", "another node active after", "slowest success", "requests", "failed GET", "failed POST", "executed twice", "acknowledged and lost"},
		Rows: [][]string{{fmt.Sprint(len(f.gaps)), Show(f.gaps, millis), Show(f.active, millis), Show(f.latency, millis), fmt.Sprint(f.sent),
			fmt.Sprint(f.gets), fmt.Sprint(f.posts), fmt.Sprint(f.twice), fmt.Sprint(f.lost)}}}
	for kind, n := range f.kinds {
		s.Notes = append(s.Notes, fmt.Sprintf("- %d × %s", n, kind))
	}
	return s
}

// repeat starts a cluster and does one thing to it several times.
func repeat(ctx context.Context, o options, rounds int, once func(context.Context, *cluster.Cluster) error) error {
	c, err := cluster.Start(ctx, cluster.Options{Dir: o.dir})
	if err != nil {
		return err
	}
	defer c.Close()
	for moved := 0; rounds > 0; rounds-- {
		round, cancel := context.WithTimeout(ctx, 3*time.Minute)
		err := once(round, c)
		if errors.Is(err, fault.ErrMoved) && moved < 5 { // the machine stalled: nothing was measured
			moved, rounds, err = moved+1, rounds+1, nil
		}
		if err == nil {
			err = c.WaitHealthy(round)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, c.Tails(10))
		}
	}
	return nil
}

const loadText = "500 requests/s, half GET and half POST of 256 bytes, open loop, one attempt per request, whatever is not a 2xx has failed"

func switchover(ctx context.Context, o options) (*Section, error) {
	var f failovers
	err := repeat(ctx, o, o.rounds(10), func(ctx context.Context, c *cluster.Cluster) error {
		out, err := fault.StepDown(ctx, c, fault.Load{})
		if err == nil {
			f.add(out)
		}
		return err
	})
	s := f.section("Planned switchover", "`step-down` of the active node; "+loadText+", to all three nodes. "+
		"The gap is the longest time between two successes of any method at any node. For orientation: OpenBao 2.5.5, 548 ms and 108 failed requests at 200/s.")
	s.Targets = []Target{
		{"switchover: failed requests", "0", fmt.Sprint(f.gets + f.posts), f.gets+f.posts == 0 && len(f.gaps) > 0},
		{"switchover: executed twice", "0", fmt.Sprint(f.twice), f.twice == 0 && len(f.gaps) > 0},
		{"switchover: gap", "≤ 100 ms", Show(f.gaps, millis), f.gaps.Median() <= 100*time.Millisecond && len(f.gaps) > 0},
	}
	return s, err
}

func crash(ctx context.Context, o options) (*Section, error) {
	var f failovers
	err := repeat(ctx, o, o.rounds(10), func(ctx context.Context, c *cluster.Cluster) error {
		out, err := fault.Crash(ctx, c, fault.Load{})
		if err == nil {
			f.add(out)
		}
		return err
	})
	s := f.section("Crash", "kill -9 of the active node; "+loadText+", to the two survivors. "+
		"For orientation: OpenBao 2.5.5, 12 s by default and 2.1 s with performance_multiplier=1; every request of the gap fails.")
	s.Targets = []Target{
		{"crash: failed GETs", "0", fmt.Sprint(f.gets), f.gets == 0 && len(f.gaps) > 0},
		{"crash: POSTs executed twice", "0", fmt.Sprint(f.twice), f.twice == 0 && len(f.gaps) > 0},
		{"crash: acknowledged writes lost", "0", fmt.Sprint(f.lost), f.lost == 0 && len(f.gaps) > 0},
		{"crash: gap", "≤ 1 s", Show(f.gaps, millis), f.gaps.Median() <= time.Second && len(f.gaps) > 0},
	}
	return s, err
}

func freeze(ctx context.Context, o options) (*Section, error) {
	var f failovers
	var waited, stale, own, pretends, later int
	length, rounds := 30*time.Second, o.rounds(5)
	if o.quick {
		length = 5 * time.Second
	}
	err := repeat(ctx, o, rounds, func(ctx context.Context, c *cluster.Cluster) error {
		out, err := fault.Freeze(ctx, c, fault.Load{}, length)
		if out != nil && out.Report != nil {
			f.add(out)
			w := out.Waiting
			waited, later = waited+w.Sent, later+w.Later
			stale, own, pretends = stale+len(w.Stale), own+len(w.Own)+len(w.Twice)+len(w.Lost), pretends+w.Pretends
		}
		return err
	})
	s := f.section("Freeze", fmt.Sprintf("SIGSTOP of the active node for %v, then SIGCONT; %s, to the two others. 40 requests per round were sent to the frozen node "+
		"over warm connections after another node had acknowledged a newer value; after the wake it was read for a second over new ones. "+
		"For orientation: OpenBao 2.5.5, 30 s, and stale reads in half of the rounds.", length, loadText))
	s.Notes = append(s.Notes, fmt.Sprintf("Waited in the frozen node's sockets: %d requests; read after the wake: %d. Stale: %d. Carried out by the woken node in its old term, twice, or lost: %d. "+
		"Status answers that still claimed the old term: %d.", waited, later, stale, own, pretends))
	s.Targets = []Target{
		{"freeze: gap", "as after a crash: ≤ 1 s", Show(f.gaps, millis), f.gaps.Median() <= time.Second && len(f.gaps) > 0},
		{"freeze: stale reads after the wake", "0", fmt.Sprint(stale), stale == 0 && waited > 0},
		{"freeze: writes by the woken node, twice or lost", "0", fmt.Sprint(own + f.twice + f.lost), own+f.twice+f.lost == 0 && waited > 0},
	}
	return s, err
}

func readYourWrites(ctx context.Context, o options) (*Section, error) {
	n, old := 10000, -1
	if o.quick {
		n = 1000
	}
	var took time.Duration
	err := repeat(ctx, o, 1, func(ctx context.Context, c *cluster.Cluster) error {
		start := time.Now()
		var err error
		old, err = fault.ReadYourWrites(ctx, c, n)
		took = time.Since(start)
		return err
	})
	return &Section{Title: "Read your writes", How: "Write at any node, read at once at any other, all six pairs. For orientation: OpenBao 2.5.5 with its default, 600 old of 600.",
		Header:  []string{"pairs of write and read", "old", "took"},
		Rows:    [][]string{{fmt.Sprint(n), fmt.Sprint(old), took.Round(time.Millisecond).String()}},
		Targets: []Target{{"read your writes: old answers", fmt.Sprintf("0 of %d", n), fmt.Sprint(old), old == 0 && err == nil}}}, err
}
