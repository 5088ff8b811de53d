package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/history"
	"github.com/locum-ha/locum/test/load"
)

// P1, P3, P4, P6: any of the three addresses serves a client while nodes are killed, frozen, stopped, stepped down
// and restarted in turn; one order of all operations explains every answer, so that no acknowledged write is lost,
// no old value read, nothing carried out twice. -chaos=10m for the long run.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := cluster.New(t, cluster.Options{})
	run(t, c, *chaos, seed, func(ctx context.Context, random *rand.Rand) {
		for turn := 0; ctx.Err() == nil; turn++ {
			disturb(ctx, t, c, turn, random)
		}
	})
}

// run lets clients work on entries through all nodes while something happens to these, and checks the history.
func run(t *testing.T, c *cluster.Cluster, d time.Duration, seed uint64, happens func(context.Context, *rand.Rand)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	recorder := history.NewRecorder()
	var wg sync.WaitGroup
	const clients = 12
	for id := range clients {
		wg.Go(func() { work(ctx, t, c, recorder, id, seed) })
	}
	happens(ctx, rand.New(rand.NewPCG(seed, 0)))
	wg.Wait()

	for _, n := range c.Nodes { // all well again
		if err := n.Wake(); err != nil {
			t.Error(err)
		}
		if !n.Running() {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.WaitHealthy(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	finalReads(t, c, recorder, clients)
	result := recorder.Check(time.Minute, filepath.Join(c.Dir(), "history.html"))
	t.Logf("%v\nanswers in each second, the first two minutes: %v", result, result.Seconds[:min(len(result.Seconds), 120)])
	if len(result.Bad) > 0 {
		t.Errorf("not linearizable: %v; drawn in %s", result.Bad, result.Drawing)
	}
	if len(result.Open) > 0 {
		t.Errorf("no verdict within the limit: %v", result.Open)
	}
	if result.Longest > 5*time.Second {
		t.Errorf("no client was served for %v", result.Longest)
	}
}

// work is one client. Half of the clients stay with an address while it serves them, as most real ones do; the others
// choose anew each time, so that every node is asked in every state. All give up soon. Entries change every few
// seconds, so that no history grows beyond what can be checked.
func work(ctx context.Context, t *testing.T, c *cluster.Cluster, recorder *history.Recorder, id int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, uint64(id)+1))
	nodes := make([]*load.Client, len(c.Nodes))
	for i, n := range c.Nodes {
		nodes[i] = load.NewClient(n.Address(), c.Token)
		defer nodes[i].Close()
	}
	start, at := time.Now(), id%len(nodes)
	seen := map[string]int{}
	for i := 0; ctx.Err() == nil; i++ {
		if id%2 == 0 {
			at = random.IntN(len(nodes))
		}
		in := history.Input{Kind: history.Kind(random.IntN(3)), Value: fmt.Sprintf("%d-%d", id, i)}
		in.Key = fmt.Sprintf("chaos/%d/%d", int(time.Since(start)/(4*time.Second)), random.IntN(6))
		in.Expect = seen[in.Key]
		limit := time.Duration(100+random.IntN(900)) * time.Millisecond
		callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		out, ok, err := recorder.Do(callCtx, nodes[at], id, in)
		cancel()
		if err != nil {
			t.Errorf("%+v: %v", in, err)
		}
		if ok && !out.Conflict {
			seen[in.Key] = out.Version
		}
		pause := time.Duration(random.IntN(20)) * time.Millisecond
		if !ok {
			at = (at + 1) % len(nodes)
			pause += 20 * time.Millisecond
		}
		after(ctx, pause)
	}
}

// finalReads reads every entry through every node when all is well again.
func finalReads(t *testing.T, c *cluster.Cluster, recorder *history.Recorder, client int) {
	t.Helper()
	ctx := within(t, time.Minute)
	nodes := clientsOf(t, c)
	for i, key := range recorder.Keys() {
		_, ok, err := recorder.Do(ctx, nodes[i%len(nodes)], client, history.Input{Kind: history.Read, Key: key})
		if err != nil || !ok {
			t.Errorf("reading %s at the end: answered %v, %v", key, ok, err)
		}
	}
}

// disturb does one thing to one node, mostly the active one, and undoes it. Two nodes are always left.
func disturb(ctx context.Context, t *testing.T, c *cluster.Cluster, turn int, random *rand.Rand) {
	victim, _ := c.Active(ctx)
	if victim == nil || random.IntN(3) == 0 {
		victim = c.Nodes[random.IntN(len(c.Nodes))]
	}
	length := time.Duration(500+random.IntN(4500)) * time.Millisecond
	kinds := []string{"kill", "freeze", "stop", "step-down"}
	kind := kinds[turn%len(kinds)]
	t.Logf("%s %s for %v", kind, victim.Name, length)
	var err error
	switch kind {
	case "kill":
		victim.Kill()
		after(ctx, length)
		err = victim.Start()
	case "freeze":
		err = victim.Freeze()
		after(ctx, length)
		if wakeErr := victim.Wake(); err == nil {
			err = wakeErr
		}
	case "stop":
		err = victim.Stop(30 * time.Second)
		after(ctx, length)
		if startErr := victim.Start(); err == nil {
			err = startErr
		}
	case "step-down":
		_ = c.StepDown(ctx, c.Nodes[random.IntN(len(c.Nodes))], "", 0) // may fail: nobody is active just now
	}
	if err != nil && ctx.Err() == nil {
		t.Errorf("%s %s: %v", kind, victim.Name, err)
	}
	// Most of the time the cluster recovers first; sometimes the next blow comes at once.
	if random.IntN(4) != 0 {
		healthy, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := c.WaitHealthy(healthy); err != nil && ctx.Err() == nil {
			t.Errorf("after %s %s: %v", kind, victim.Name, err)
		}
	}
}
