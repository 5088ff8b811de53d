package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/grpclog"

	"github.com/locum-ha/locum/test/cluster"
)

// etcd is a three-node etcd on loopback with its defaults: fsync on.
type etcd struct {
	processes []*cluster.Process
	clients   []*clientv3.Client
	next      atomic.Int64
}

func startEtcd(ctx context.Context, dir string) (*etcd, error) {
	if err := installEtcd(ctx); err != nil {
		return nil, err
	}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(discard{}, discard{}, discard{}))
	e := &etcd{}
	const nodes = 3
	var initial, endpoints []string
	host := func(i int) string { return fmt.Sprintf("127.251.0.%d", i+1) }
	for i := range nodes {
		initial = append(initial, fmt.Sprintf("e%d=http://%s:2380", i, host(i)))
		endpoints = append(endpoints, fmt.Sprintf("http://%s:2379", host(i)))
	}
	for i := range nodes {
		p, err := cluster.StartProcess(filepath.Join(dir, fmt.Sprintf("etcd%d.log", i)), nil, "etcd",
			"--name", fmt.Sprintf("e%d", i), "--data-dir", filepath.Join(dir, fmt.Sprintf("etcd%d", i)),
			"--listen-peer-urls", fmt.Sprintf("http://%s:2380", host(i)), "--initial-advertise-peer-urls", fmt.Sprintf("http://%s:2380", host(i)),
			"--listen-client-urls", endpoints[i], "--advertise-client-urls", endpoints[i],
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new", "--log-level", "error")
		if err != nil {
			e.close()
			return nil, err
		}
		e.processes = append(e.processes, p)
	}
	for range 4 { // connections; one alone is a bottleneck of its own
		client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
		if err != nil {
			e.close()
			return nil, err
		}
		e.clients = append(e.clients, client)
	}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := cluster.Poll(ready, "etcd takes writes", func() error {
		once, cancel := context.WithTimeout(ready, 2*time.Second)
		defer cancel()
		_, err := e.clients[0].Put(once, "ready", "")
		return err
	})
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// installEtcd gets the peer, where that can be done without asking.
func installEtcd(ctx context.Context) error {
	if _, err := exec.LookPath("etcd"); err == nil {
		return nil
	}
	install := exec.CommandContext(ctx, "sh", "-c", "apt-get install -y -qq etcd-server || { apt-get update -qq && apt-get install -y -qq etcd-server; }")
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("etcd, the peer of this part, is not installed (Debian: apt-get install etcd-server): %w: %.300s", err, out)
	}
	return nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (e *etcd) close() {
	for _, client := range e.clients {
		_ = client.Close()
	}
	for _, p := range e.processes {
		p.Kill()
	}
}

// saturate keeps so many callers busy for a time; each writes fresh keys.
func (e *etcd) saturate(ctx context.Context, callers int, limit time.Duration, value string) (written, error) {
	each := make([][]time.Duration, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	start := time.Now()
	before := cpu(e.processes...)
	for i := range callers {
		wg.Go(func() {
			client := e.clients[i%len(e.clients)]
			for time.Since(start) < limit {
				begin := time.Now()
				_, errs[i] = client.Put(ctx, fmt.Sprintf("bench/%d", e.next.Add(1)), value)
				if errs[i] != nil {
					return
				}
				each[i] = append(each[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	all := slices.Sorted(slices.Values(slices.Concat(each...)))
	if len(all) == 0 {
		return written{}, errors.Join(append(errs, errors.New("etcd took no write"))...)
	}
	return written{
		rate: float64(len(all)) / elapsed.Seconds(), p50: all[len(all)/2], p99: all[len(all)*99/100],
		cpu: (cpu(e.processes...) - before) / time.Duration(len(all)),
	}, errors.Join(errs...)
}

// cpu adds up the processor time of processes.
func cpu(processes ...*cluster.Process) time.Duration {
	var sum time.Duration
	for _, p := range processes {
		sum += p.CPU()
	}
	return sum
}
