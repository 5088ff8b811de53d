package fault

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// ReadYourWrites writes at one node and reads at once at another, n times over all pairs of nodes, and counts the
// reads that did not hold what was just written.
func ReadYourWrites(ctx context.Context, c *cluster.Cluster, n int) (old int, err error) {
	const workers = 6 // one per ordered pair of three nodes
	var stale, next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, workers)
	run := unique()
	for w := range workers {
		wg.Go(func() {
			clients := make([]*load.Client, len(c.Nodes))
			for i, node := range c.Nodes {
				clients[i] = load.NewClient(node.Address(), c.Token)
				defer clients[i].Close()
			}
			path := fmt.Sprintf("/v1/secret/data/%s/%d", run, w)
			for i := next.Add(1); i <= int64(n) && errs[w] == nil; i = next.Add(1) {
				from := int(i) % len(clients)
				to := (from + 1 + w%(len(clients)-1)) % len(clients)
				var fresh bool
				fresh, errs[w] = writeRead(ctx, clients[from], clients[to], path, fmt.Sprintf("value %d", i))
				if !fresh {
					stale.Add(1)
				}
			}
		})
	}
	wg.Wait()
	for _, e := range errs {
		if e != nil {
			return int(stale.Load()), e
		}
	}
	return int(stale.Load()), nil
}

func writeRead(ctx context.Context, at, from *load.Client, path, value string) (fresh bool, err error) {
	answer, err := at.Do(ctx, http.MethodPost, path, fmt.Appendf(nil, `{"data":{"v":%q}}`, value))
	if err != nil || answer.Status/100 != 2 {
		return true, fmt.Errorf("write: status %d %.200s, %w", answer.Status, answer.Body, err)
	}
	answer, err = from.Do(ctx, http.MethodGet, path, nil)
	if err != nil || answer.Status != http.StatusOK {
		return true, fmt.Errorf("read: status %d %.200s, %w", answer.Status, answer.Body, err)
	}
	return load.ValueOf(answer.Body) == value, nil
}
