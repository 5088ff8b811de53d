package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// size measures the binary, idle memory, and the time from start to ready.
func size(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Size, memory, start",
		How:    "Binary: `go build -trimpath -ldflags '-s -w'` without cgo. Memory: VmRSS of each node of an idle cluster 20 s after its start; its guardian is a process of the same binary, whose anonymous memory is added (the rest are the binary's pages, which count once). Ready: from fork to the first 200 of `/v1/sys/ready`, asked every millisecond. For orientation: OpenBao 2.5.5, 124.9 MiB, 101 and 98 MiB, 85 ms.",
		Header: []string{"what", "measured"}}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return s, err
	}
	bytes, err := binarySize(ctx, o.dir)
	if err != nil {
		return s, err
	}
	s.Rows = append(s.Rows, []string{"binary, stripped", mib(bytes)})
	s.Targets = append(s.Targets, Target{"binary, stripped", "≤ 60 MB", fmt.Sprintf("%.1f MB", float64(bytes)/1e6), bytes <= 60e6})

	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(o.dir, "cluster")})
	if err != nil {
		return s, err
	}
	defer c.Close()
	idle := time.NewTimer(20 * time.Second)
	defer idle.Stop()
	select {
	case <-ctx.Done():
		return s, ctx.Err()
	case <-idle.C:
	}
	active, _ := c.Active(ctx)
	var most int64
	for _, n := range c.Nodes {
		rss := n.Process().RSS()
		guardian, own := n.Process().WatchersRSS()
		most = max(most, rss+own)
		s.Rows = append(s.Rows, []string{fmt.Sprintf("resident, %s, active %v", n.Name, n == active), mib(rss)},
			[]string{fmt.Sprintf("resident, guardian of %s; of that its own", n.Name), mib(guardian) + "; " + mib(own)})
	}
	s.Targets = append(s.Targets, Target{"resident memory of an idle node and its guardian, the largest", "≤ 40 MiB", mib(most), most <= 40<<20})

	var ready, after Rounds[time.Duration]
	for range o.rounds(10) {
		n := c.Nodes[(active.Index+1)%len(c.Nodes)]
		if err := n.Stop(20 * time.Second); err != nil {
			return s, err
		}
		took, err := startToReady(ctx, n)
		if err != nil {
			return s, err
		}
		ready = append(ready, took)
		if err := c.WaitHealthy(ctx); err != nil {
			return s, err
		}
	}
	s.Rows = append(s.Rows, []string{"standby, start to ready", Show(ready, millis)})
	s.Targets = append(s.Targets, Target{"start to ready, standby", "≤ 100 ms", Show(ready, millis), ready.Median() <= 100*time.Millisecond})

	single, err := cluster.Start(ctx, cluster.Options{Nodes: 1, Dir: filepath.Join(o.dir, "single")})
	if err != nil {
		return s, err
	}
	defer single.Close()
	for range o.rounds(10) {
		if err := single.Nodes[0].Stop(20 * time.Second); err != nil {
			return s, err
		}
		took, err := startToReady(ctx, single.Nodes[0])
		if err != nil {
			return s, err
		}
		after = append(after, took)
	}
	s.Rows = append(s.Rows, []string{"cluster of one, start to ready", Show(after, millis)})
	s.Targets = append(s.Targets, Target{"start to ready, a cluster of one", "≤ 100 ms", Show(after, millis), after.Median() <= 100*time.Millisecond})
	return s, nil
}

func binarySize(ctx context.Context, dir string) (int64, error) {
	path := filepath.Join(dir, "locum")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/locum")
	cmd.Dir, cmd.Env = cluster.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// startToReady starts a node and asks every millisecond whether it may be sent requests.
func startToReady(ctx context.Context, n *cluster.Node) (time.Duration, error) {
	client := load.NewClient(n.Address(), "")
	defer client.Close()
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	start := time.Now()
	if err := n.Start(); err != nil {
		return 0, err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := client.Do(limit, http.MethodGet, "/v1/sys/ready", nil)
		if err == nil && answer.Status == http.StatusOK {
			return time.Since(start), nil
		}
		select {
		case <-limit.Done():
			return 0, fmt.Errorf("%s is not ready: status %d, %w", n.Name, answer.Status, context.Cause(limit))
		case <-tick.C:
		}
	}
}
