package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// reads compares entries read at the active node with the same through a standby. It is held to no target: the hop alone
// is measured by forwarding.
func reads(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Entries read",
		How: "One entry of 1 KiB at `/v1/secret/data/…`, three nodes; every read is decrypted, checked against the lease, and never old. " +
			"For orientation, OpenBao 2.5.5: a read through a standby reaches 0.36 to 0.44 of a direct one and costs 150 to 180 µs of CPU more.",
		Header: []string{"way", "connections", "reads/s", "of direct", "p50", "p99", "CPU per read, all servers"}}
	c, err := cluster.Start(ctx, cluster.Options{Dir: o.dir})
	if err != nil {
		return s, err
	}
	defer c.Close()
	active, _ := c.Active(ctx)
	standby := c.Nodes[(active.Index+1)%len(c.Nodes)]
	const path = "/v1/secret/data/bench/read"
	value := map[string]any{"data": map[string]string{"v": strings.Repeat("v", 1024)}}
	if err := c.Call(ctx, active, http.MethodPost, path, value, nil); err != nil {
		return s, err
	}
	length := 2 * time.Second
	if o.quick {
		length = time.Second
	}
	nodes := map[string]*cluster.Node{"direct": active, "through a standby": standby}
	order := []string{"direct", "through a standby"}
	result := map[string]map[int]*writers{"direct": {}, "through a standby": {}}
	connections := []int{1, 16, 64}
	for range o.rounds(5) {
		for _, n := range connections {
			for _, way := range order {
				before := cpu(processes(c)...)
				r, err := load.Saturate([]string{nodes[way].Address()}, n, length, load.GET(path, c.Token))
				if err != nil {
					return s, err
				}
				if r.Failed > 0 || r.Requests == 0 {
					return s, fmt.Errorf("%s: %d of %d reads failed", way, r.Failed, r.Requests)
				}
				if result[way][n] == nil {
					result[way][n] = &writers{}
				}
				result[way][n].add(written{rate: r.Rate(), p50: r.Quantile(.5), p99: r.Quantile(.99),
					cpu: (cpu(processes(c)...) - before) / time.Duration(r.Requests)})
			}
		}
	}
	for _, n := range connections {
		for _, way := range order {
			m := result[way][n]
			s.Rows = append(s.Rows, []string{way, strconv.Itoa(n), Show(m.rate, whole), Show(ratios(m.rate, result["direct"][n].rate), two),
				Show(m.p50, micros), Show(m.p99, micros), Show(m.cpu, micros)})
		}
	}
	return s, nil
}
