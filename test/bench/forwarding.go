package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// way is one way to the origin.
type way struct {
	name      string
	address   string
	processes []*cluster.Process
	measured  map[point]*crossing
}

// point is what a way is measured at.
type point struct {
	connections int
	awake       bool // the processors were kept awake
}

func (p point) String() string {
	if p.awake {
		return strconv.Itoa(p.connections) + ", awake"
	}
	return strconv.Itoa(p.connections)
}

// crossing is the rounds of one way at one number of connections.
type crossing struct {
	rate     Rounds[float64]
	p50, p99 Rounds[time.Duration]
	cpu      Rounds[float64] // µs per request, all servers of the way together
}

// forwarding compares the way through a standby with a stock reverse proxy and with the origin alone.
func forwarding(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Forwarding",
		How: "The same handler (1 KiB): alone, in net/http's server; behind `httputil.ReverseProxy` over mutual-TLS HTTP/2, as it comes and with a buffer pool; behind a standby and an active node " +
			"(packages internal/listener, forward and cluster, as the daemon joins them). " +
			"Every server is a process of its own, the client's side is plain HTTP/1.1, closed loop. CPU is that of all servers of the way together. " +
			"What a request takes longer is the difference of the medians of one round. It is held to its target on the machine as it is, whose idle processors go to sleep and take some 30 µs to wake; " +
			"\"awake\", for comparison: they were kept from it (PM QoS). A standby that waits for its only request's answer looks for it for up to 150 µs before it sleeps (docs/adr/0024), which stands in its CPU. " +
			"For orientation, on a machine of this size: nginx in plain text 0.53 of direct, the stock proxy 0.29.",
		Header: []string{"way", "connections", "requests/s", "of direct", "of stock", "p50", "p99", "CPU per request"}}
	ways, err := startWays(ctx, o.dir)
	defer func() {
		for _, w := range ways {
			for _, p := range w.processes {
				p.Kill()
			}
		}
	}()
	if err != nil {
		return s, err
	}
	length := 3 * time.Second
	if o.quick {
		length = time.Second
	}
	points := []point{{1, false}, {1, true}, {16, false}, {64, false}}
	for round := range o.rounds(7) {
		for _, at := range points {
			if err := measureWays(ways, round, at, length); err != nil {
				return s, err
			}
			if err := ctx.Err(); err != nil {
				return s, err
			}
		}
	}
	direct, stock, locum, tuned := ways[0], ways[1], ways[2], ways[3]
	for _, at := range points {
		for _, w := range ways {
			m := w.measured[at]
			s.Rows = append(s.Rows, []string{w.name, at.String(), Show(m.rate, whole), Show(ratios(m.rate, direct.measured[at].rate), two),
				Show(ratios(m.rate, stock.measured[at].rate), two), Show(m.p50, micros), Show(m.p99, micros), Show(m.cpu, whole) + " µs"})
		}
	}
	ratio := ratios(locum.measured[point{64, false}].rate, stock.measured[point{64, false}].rate)
	best := ratios(locum.measured[point{64, false}].rate, tuned.measured[point{64, false}].rate)
	cost := differences(locum.measured[point{64, false}].cpu, direct.measured[point{64, false}].cpu)
	added := differences(floats(locum.measured[point{1, false}].p50), floats(direct.measured[point{1, false}].p50))
	s.Targets = []Target{
		{"forwarding: requests/s at 64 connections", "≥ 1.3 × stock ReverseProxy", Show(ratio, two) + " ×", ratio.Median() >= 1.3},
		{"forwarding: the same against a ReverseProxy with a buffer pool", "≥ 1.3 ×", Show(best, two) + " ×", best.Median() >= 1.3},
		{"forwarding: added CPU per request, all nodes together, 64 connections", "≤ 40 µs", Show(cost, whole) + " µs", cost.Median() <= 40},
		{"forwarding: added at the median, one connection", "≤ 100 µs", Show(added, func(f float64) string { return micros(time.Duration(f)) }), added.Median() <= float64(100*time.Microsecond)},
	}
	return s, nil
}

// measureWays measures all ways at one point; who is first changes from round to round.
func measureWays(ways []*way, round int, at point, length time.Duration) error {
	if at.awake {
		letSleep, err := keepAwake()
		if err != nil { // without root: what is measured is more, not less
			fmt.Fprintln(os.Stderr, "warning:", err)
		} else {
			defer letSleep()
		}
	}
	for i := range ways {
		if err := ways[(i+round)%len(ways)].measure(at, length); err != nil {
			return err
		}
	}
	return nil
}

func differences(a, b Rounds[float64]) Rounds[float64] {
	var r Rounds[float64]
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]-b[i])
	}
	return r
}

// startWays starts the servers of all ways, and waits until they answer.
func startWays(ctx context.Context, dir string) ([]*way, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := writeCertificate(dir); err != nil {
		return nil, err
	}
	const ip = "127.252.0.1"
	ways := []*way{{name: "direct", address: ip + ":9000"}, {name: "stock ReverseProxy", address: ip + ":9010"}, {name: "locum", address: ip + ":9020"},
		{name: "ReverseProxy with a buffer pool", address: ip + ":9030"}}
	for _, start := range []struct {
		way  int
		args []string
	}{
		{0, []string{"direct", ip + ":9000"}},
		{1, []string{"stock-active", ip + ":9011", dir}},
		{1, []string{"stock-standby", ip + ":9010", ip + ":9011", dir}},
		{3, []string{"stock-active", ip + ":9031", dir}},
		{3, []string{"tuned-standby", ip + ":9030", ip + ":9031", dir}},
		{2, []string{"locum-active", ip + ":9021", ip + ":9022", dir}},
		{2, []string{"locum-standby", ip + ":9020", dir}},
	} {
		self, err := os.Executable()
		if err != nil {
			return ways, err
		}
		p, err := cluster.StartProcess(filepath.Join(dir, start.args[0]+".log"), nil, self, append([]string{"role"}, start.args...)...)
		if err != nil {
			return ways, err
		}
		ways[start.way].processes = append(ways[start.way].processes, p)
	}
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, w := range ways {
		err := cluster.Poll(limit, w.name+" answers", func() error { return w.answers(limit) })
		if err != nil {
			return ways, err
		}
	}
	return ways, nil
}

func (w *way) answers(ctx context.Context) error {
	client := load.NewClient(w.address, "")
	defer client.Close()
	once, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, p := range w.processes {
		if !p.Running() {
			return fmt.Errorf("a server of %s has ended: %w", w.name, p.Wait(time.Second))
		}
	}
	answer, err := client.Do(once, "GET", "/", nil)
	if err == nil && (answer.Status != 200 || len(answer.Body) != 1024) {
		err = fmt.Errorf("status %d, %d bytes", answer.Status, len(answer.Body))
	}
	return err
}

func (w *way) measure(at point, length time.Duration) error {
	before := cpu(w.processes...)
	r, err := load.Saturate([]string{w.address}, at.connections, length, load.GET("/", ""))
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	if r.Failed > 0 || r.Requests == 0 {
		return fmt.Errorf("%s: %d of %d requests failed", w.name, r.Failed, r.Requests)
	}
	if w.measured == nil {
		w.measured = map[point]*crossing{}
	}
	m := w.measured[at]
	if m == nil {
		m = &crossing{}
		w.measured[at] = m
	}
	m.rate = append(m.rate, r.Rate())
	m.p50, m.p99 = append(m.p50, r.Quantile(.5)), append(m.p99, r.Quantile(.99))
	m.cpu = append(m.cpu, float64((cpu(w.processes...)-before).Nanoseconds())/1e3/float64(r.Requests))
	return nil
}
