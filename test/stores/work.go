package stores

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/history"
	"github.com/locum-ha/locum/test/load"
)

// worker is one client of a history: it goes from node to node, gives up soon, and works on a few entries that change every
// few seconds, so that no entry's history grows beyond what can be checked.
type worker struct {
	id       int
	random   *rand.Rand
	nodes    []*load.Client
	recorder *history.Recorder
	faults   []error
}

// Work lets clients work on entries through all nodes until ctx ends; the returned function waits for them and says what no
// server should have answered.
func Work(ctx context.Context, c *cluster.Cluster, recorder *history.Recorder, clients int, seed uint64) (wait func() []error) {
	var wg sync.WaitGroup
	workers := make([]*worker, clients)
	for id := range workers {
		w := &worker{id: id, random: rand.New(rand.NewPCG(seed, uint64(id))), recorder: recorder}
		for _, n := range c.Nodes {
			w.nodes = append(w.nodes, load.NewClient(n.Address(), c.Token))
		}
		workers[id] = w
		wg.Go(func() { w.run(ctx) })
	}
	return func() (faults []error) {
		wg.Wait()
		for _, w := range workers {
			faults = append(faults, w.faults...)
		}
		return faults
	}
}

func (w *worker) run(ctx context.Context) {
	for _, n := range w.nodes {
		defer n.Close()
	}
	start, seen := time.Now(), map[string]int{}
	for i := 0; ctx.Err() == nil; i++ {
		in := history.Input{Kind: history.Kind(w.random.IntN(3)), Value: fmt.Sprintf("%d-%d", w.id, i)}
		in.Key = fmt.Sprintf("stores/%d/%d", int(time.Since(start)/(4*time.Second)), w.random.IntN(4))
		in.Expect = seen[in.Key]
		limit := time.Duration(100+w.random.IntN(900)) * time.Millisecond
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		out, ok, err := w.recorder.Do(call, w.nodes[w.random.IntN(len(w.nodes))], w.id, in)
		cancel()
		if err != nil {
			w.faults = append(w.faults, fmt.Errorf("%+v: %w", in, err))
		}
		if ok && !out.Conflict {
			seen[in.Key] = out.Version
		}
		pause := time.Duration(w.random.IntN(30)) * time.Millisecond
		if !ok {
			pause += 30 * time.Millisecond
		}
		after(ctx, pause)
	}
}

// ReadAll reads every entry of the history when all is well again, so that what was lost shows.
func ReadAll(ctx context.Context, c *cluster.Cluster, recorder *history.Recorder, client int) error {
	for i, key := range recorder.Keys() {
		node := load.NewClient(c.Nodes[i%len(c.Nodes)].Address(), c.Token)
		_, ok, err := recorder.Do(ctx, node, client, history.Input{Kind: history.Read, Key: key})
		node.Close()
		if err != nil || !ok {
			return fmt.Errorf("reading %s at the end: answered %v, %v", key, ok, err)
		}
	}
	return nil
}

// TwoWriters names the terms in which two nodes had writes accepted.
func TwoWriters(r *load.Report) (terms []string) {
	by := map[string]string{}
	for i := range r.Records {
		rec := &r.Records[i]
		if rec.Method != "POST" || !rec.OK() || rec.Term == "" {
			continue
		}
		if node, ok := by[rec.Term]; ok && node != rec.Node {
			terms = append(terms, fmt.Sprintf("term %s: %s and %s", rec.Term, node, rec.Node))
		}
		by[rec.Term] = rec.Node
	}
	return terms
}

// after waits: part of a scenario, never for something to become true.
func after(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
