package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// written is one round of writes, or of reads.
type written struct {
	rate     float64
	p50, p99 time.Duration
	cpu      time.Duration // per operation, of all servers together
}

// writers are the rounds of one store, or way, at one number of connections.
type writers struct {
	rate     Rounds[float64]
	p50, p99 Rounds[time.Duration]
	cpu      Rounds[time.Duration]
}

func (w *writers) add(r written) {
	w.rate, w.p50, w.p99, w.cpu = append(w.rate, r.rate), append(w.p50, r.p50), append(w.p99, r.p99), append(w.cpu, r.cpu)
}

func (w *writers) row(who string, connections int) []string {
	return []string{who, strconv.Itoa(connections), Show(w.rate, whole), Show(w.p50, micros), Show(w.p99, micros), Show(w.cpu, micros)}
}

// writes compares entries written through a standby with puts of a three-node etcd on the same disk.
func writes(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Entries written",
		How: "1 KiB values under fresh keys, three nodes, fsync on, the same disk, both clusters up and measured in turn. Locum: HTTP/1.1 connections to one standby, " +
			"which forwards; each write is encrypted, fenced and versioned. etcd: its Go client, four connections over all endpoints.",
		Header: []string{"store", "connections", "writes/s", "p50", "p99", "CPU per write, all servers"}}
	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(o.dir, "locum")})
	if err != nil {
		return s, err
	}
	defer c.Close()
	peer, err := startEtcd(ctx, o.dir)
	if err != nil {
		return s, err
	}
	defer peer.close()
	active, _ := c.Active(ctx)
	standby := c.Nodes[(active.Index+1)%len(c.Nodes)]
	value := strings.Repeat("v", 1024)
	length := 4 * time.Second
	if o.quick {
		length = time.Second
	}
	connections := []int{1, 16, 64}
	result := map[string]map[int]*writers{"locum, through a standby": {}, "locum, at the active node": {}, "etcd": {}}
	order := []string{"locum, through a standby", "locum, at the active node", "etcd"}
	for range o.rounds(5) {
		for _, n := range connections {
			for _, who := range order {
				var r written
				switch who {
				case order[0]:
					r, err = writeLocum(c, standby, n, length, value)
				case order[1]:
					r, err = writeLocum(c, active, n, length, value)
				default:
					r, err = peer.saturate(ctx, n, length, value)
				}
				if err != nil {
					return s, fmt.Errorf("%s at %d connections: %w", who, n, err)
				}
				if result[who][n] == nil {
					result[who][n] = &writers{}
				}
				result[who][n].add(r)
			}
		}
	}
	for _, n := range connections {
		for _, who := range order {
			s.Rows = append(s.Rows, result[who][n].row(who, n))
		}
	}
	rate := ratios(result[order[0]][64].rate, result["etcd"][64].rate)
	mine, theirs := result[order[0]][1].p50, result["etcd"][1].p50
	latency := ratios(floats(mine), floats(theirs))
	s.Targets = []Target{
		{"writes/s through a standby, 64 connections", "≥ 1 × etcd", Show(rate, three) + " ×", rate.Median() >= 1},
		{"median latency of a write through a standby, 1 connection", "≤ 1.5 × etcd", Show(latency, two) + " ×", latency.Median() <= 1.5},
	}
	return s, nil
}

var writeRun atomic.Int64

// writing is a write of a fresh entry, another one each time.
func writing(token, value string) load.Request {
	run := writeRun.Add(1)
	body := fmt.Sprintf(`{"data":{"v":%q}}`, value)
	tail := fmt.Sprintf(" HTTP/1.1\r\nHost: bench\r\nX-Vault-Token: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
	return func(b []byte, conn, i int) []byte {
		b = fmt.Appendf(b, "POST /v1/secret/data/bench/%d-%d-%d", run, conn, i)
		return append(b, tail...)
	}
}

func writeLocum(c *cluster.Cluster, n *cluster.Node, connections int, length time.Duration, value string) (written, error) {
	before := cpu(processes(c)...)
	r, err := load.Saturate([]string{n.Address()}, connections, length, writing(c.Token, value))
	if err != nil {
		return written{}, err
	}
	if r.Failed > 0 {
		return written{}, fmt.Errorf("%d of %d writes failed", r.Failed, r.Requests)
	}
	return written{rate: r.Rate(), p50: r.Quantile(.5), p99: r.Quantile(.99), cpu: (cpu(processes(c)...) - before) / time.Duration(r.Requests)}, nil
}

func processes(c *cluster.Cluster) []*cluster.Process {
	var all []*cluster.Process
	for _, n := range c.Nodes {
		all = append(all, n.Process())
	}
	return all
}

// ratios divides round by round.
func ratios(a, b Rounds[float64]) Rounds[float64] {
	var r Rounds[float64]
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return r
}

func floats(d Rounds[time.Duration]) Rounds[float64] {
	var f Rounds[float64]
	for _, x := range d {
		f = append(f, float64(x))
	}
	return f
}
