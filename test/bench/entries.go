package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// kvPoint is one thing that is measured.
type kvPoint struct {
	write       bool
	standby     bool // through one; else at the active node
	connections int
}

func (p kvPoint) String() string {
	what, where := "read", "at the active node"
	if p.write {
		what = "write"
	}
	if p.standby {
		where = "through a standby"
	}
	return what + " " + where
}

// openBao is what OpenBao 2.5.5 reached, in requests per second: KV version 1, values of 1000 bytes, three nodes on raft, plain HTTP,
// two cores that the load shared, standbys that forward.
var openBao = map[kvPoint]float64{
	{false, false, 1}: 8000, {false, false, 16}: 17000, {false, false, 64}: 17000,
	{false, true, 1}: 2100, {false, true, 16}: 6300, {false, true, 64}: 5900,
	{true, false, 1}: 430, {true, false, 16}: 1760, {true, false, 64}: 3680,
	{true, true, 1}: 410, {true, true, 16}: 1300, {true, true, 64}: 2500,
}

// trivial is what a trivial Go server (1 KiB, package net/http) reached on the machine where OpenBao was measured.
var trivial = map[int]float64{1: 19019, 16: 68155, 64: 73634}

// kvServer is a server to be measured.
type kvServer struct {
	name, token     string
	active, standby string              // addresses
	yardstick       bool                // has no entries: reads at the active node alone, of anything
	known           map[kvPoint]float64 // what was reached elsewhere
	result          map[kvPoint]*writers
}

// entries measures entries read and written against what OpenBao is known to reach, and a bao beside it where one is given.
func entries(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Entries, against OpenBao",
		How: "KV version 2, values of 1 KiB, three nodes, plain HTTP: one entry read again and again, fresh entries written; at the active node, and through a standby, " +
			"which forwards. Elsewhere: OpenBao 2.5.5 with KV version 1, which is simpler, measured on a machine like this one, two cores shared with the load, and not in this run " +
			"(a bao given with `-bao` is: KV version 2, both clusters up, in turn). How far the two machines can be compared shows the trivial Go server (1 KiB, net/http), which was measured " +
			"there and is measured here.",
		Header: []string{"server", "what", "connections", "requests/s", "elsewhere", "ratio", "p50", "p99"}}
	servers, end, err := startKV(ctx, o)
	defer end()
	if err != nil {
		return s, err
	}
	if err := measureKV(ctx, o, servers); err != nil {
		return s, err
	}
	for _, p := range kvPoints() {
		for _, who := range servers {
			if m := who.result[p]; m != nil {
				known := who.known[p]
				s.Rows = append(s.Rows, []string{who.name, p.String(), strconv.Itoa(p.connections), Show(m.rate, whole), whole(known), Show(times(m.rate, known), two), Show(m.p50, micros), Show(m.p99, micros)})
			}
		}
		ours := servers[0].result[p].rate
		target := Target{What: fmt.Sprintf("entries: %s, connections: %d", p, p.connections)}
		ratio := times(ours, openBao[p])
		target.Want = fmt.Sprintf("≥ 1.5 × OpenBao's %.0f/s, measured elsewhere", openBao[p])
		if o.bao != "" {
			target.Want, ratio = "≥ 1.5 × bao", ratios(ours, servers[len(servers)-1].result[p].rate)
		}
		target.Got, target.Met = Show(ratio, two)+" ×", ratio.Median() >= 1.5
		s.Targets = append(s.Targets, target)
	}
	return s, nil
}

func kvPoints() (all []kvPoint) {
	for _, write := range []bool{false, true} {
		for _, standby := range []bool{false, true} {
			for _, n := range []int{1, 16, 64} {
				all = append(all, kvPoint{write, standby, n})
			}
		}
	}
	return all
}

// times is the rounds as multiples of what was known.
func times(r Rounds[float64], of float64) (all Rounds[float64]) {
	for _, f := range r {
		all = append(all, f/of)
	}
	return all
}

// startKV starts Locum's cluster, the trivial server, and last a bao where one is given. end is to be called whatever the error.
func startKV(ctx context.Context, o options) (servers []*kvServer, end func(), err error) {
	var ends []func()
	end = func() {
		for _, f := range ends {
			f()
		}
	}
	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(o.dir, "locum")})
	if err != nil {
		return nil, end, err
	}
	ends = append(ends, func() { c.Close() })
	active, _ := c.Active(ctx)
	value := map[string]any{"data": map[string]string{"v": strings.Repeat("v", 1024)}}
	if err := c.Call(ctx, active, http.MethodPost, "/v1/secret/data/bench/read", value, nil); err != nil {
		return nil, end, err
	}
	standby := c.Nodes[(active.Index+1)%len(c.Nodes)]
	servers = append(servers, &kvServer{name: "locum", token: c.Token, active: active.Address(), standby: standby.Address(), known: openBao})

	const address = "127.252.0.2:9000"
	self, err := os.Executable()
	if err != nil {
		return nil, end, err
	}
	p, err := cluster.StartProcess(filepath.Join(o.dir, "trivial.log"), nil, self, "role", "direct", address)
	if err != nil {
		return nil, end, err
	}
	ends = append(ends, p.Kill)
	yardstick := &kvServer{name: "trivial Go server", active: address, yardstick: true, known: map[kvPoint]float64{}}
	for n, rate := range trivial {
		yardstick.known[kvPoint{connections: n}] = rate
	}
	servers = append(servers, yardstick)
	if err := cluster.Poll(ctx, "the trivial server answers", func() error {
		_, err := load.Saturate([]string{address}, 1, time.Millisecond, load.GET("/", ""))
		return err
	}); err != nil || o.bao == "" {
		return servers, end, err
	}
	peer, err := startBao(ctx, o.bao, filepath.Join(o.dir, "bao"))
	if err != nil {
		return nil, end, fmt.Errorf("%s: %w", o.bao, err)
	}
	ends = append(ends, func() { peer.close() })
	return append(servers, &kvServer{name: "bao", token: peer.token, active: peer.addresses[0], standby: peer.addresses[1], known: openBao}), end, nil
}

func measureKV(ctx context.Context, o options, servers []*kvServer) error {
	length := 1500 * time.Millisecond
	if o.quick {
		length = time.Second
	}
	for range o.rounds(5) {
		for _, p := range kvPoints() {
			for _, who := range servers {
				if who.yardstick && (p.write || p.standby) {
					continue
				}
				if err := who.measure(p, length); err != nil {
					return fmt.Errorf("%s, %s, %d connections: %w", who.name, p, p.connections, err)
				}
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

func (k *kvServer) measure(p kvPoint, length time.Duration) error {
	request, address := load.GET("/v1/secret/data/bench/read", k.token), k.active
	if p.write {
		request = writing(k.token, strings.Repeat("v", 1024))
	}
	if p.standby {
		address = k.standby
	}
	r, err := load.Saturate([]string{address}, p.connections, length, request)
	if err != nil {
		return err
	}
	if r.Failed > 0 || r.Requests == 0 {
		return fmt.Errorf("%d of %d requests failed", r.Failed, r.Requests)
	}
	if k.result == nil {
		k.result = map[kvPoint]*writers{}
	}
	if k.result[p] == nil {
		k.result[p] = &writers{}
	}
	k.result[p].add(written{rate: r.Rate(), p50: r.Quantile(.5), p99: r.Quantile(.99)})
	return nil
}
