package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/examples/internal/trio"
)

func TestMain(m *testing.M) { trio.Main(m, main) }

// "No webhook lost": hooks come in at every node; the active node is killed in the middle, comes back, and the next one is killed.
// What was accepted is worked off, all of it, and nothing twice, although senders and Locum repeat.
func TestNoWebhookLost(t *testing.T) {
	nodes := trio.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const hooks, sources = 300, 3
	var accepted, tries atomic.Int64
	var wg sync.WaitGroup
	for source := range sources {
		wg.Go(func() {
			for i := range hooks / sources {
				id := fmt.Sprintf("%d-%d", source, i)
				for try := 0; ; try++ {
					once, stop := context.WithTimeout(ctx, 20*time.Second)
					n, err := trio.Send(once, "POST", fmt.Sprintf("http://%s/hooks/source-%d", nodes[(source+try)%3].Listen, source),
						`{"event":"push"}`, http.Header{"X-Delivery-Id": {id}})
					stop()
					tries.Add(int64(n))
					if err == nil {
						break
					}
					if ctx.Err() != nil {
						t.Error(err)
						return
					}
				}
				accepted.Add(1)
			}
		})
	}
	for i := range 2 {
		trio.Until(t, func() bool { return accepted.Load() > int64((i+1)*hooks/4) })
		first := trio.Active(t, nodes)
		first.Kill()
		var left []*trio.Process
		for _, n := range nodes {
			if n != first {
				left = append(left, n)
			}
		}
		trio.Active(t, left)
		first.Start()
		first.Ready()
	}
	wg.Wait()
	var c counts
	trio.Until(t, func() bool {
		resp, err := http.Get("http://" + nodes[0].Listen + "/counts")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		c = counts{}
		return json.NewDecoder(resp.Body).Decode(&c) == nil && c.Done >= hooks
	})
	if c.Done != hooks || len(c.Source) != sources {
		t.Fatalf("%d hooks were accepted, each once: %+v", hooks, c)
	}
	for source, n := range c.Source {
		if n != hooks/sources {
			t.Errorf("%s: %d of %d", source, n, hooks/sources)
		}
	}
	t.Logf("%d hooks, %d tries of their senders", hooks, tries.Load())
}
