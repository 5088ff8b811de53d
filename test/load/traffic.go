package load

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Traffic is a number of requests a second to an application that answers with method and path, half of them GET and half POST,
// each tried once, spread over some addresses. No two requests have the same path.
type Traffic struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	visits []Visit
}

// Visit is one request.
type Visit struct {
	Method, Path, Address string
	At                    time.Duration // since the start, when it was answered
	Took                  time.Duration
	Status                int
	Body                  string
	Err                   error
}

// OK reports whether it was answered as it should.
func (v Visit) OK() bool { return v.Err == nil && v.Status == 200 && v.Body == v.Method+" "+v.Path }

// String shows what came back.
func (v Visit) String() string {
	return fmt.Sprintf("%s %s at %s: %d %q %v after %s (at %s)", v.Method, v.Path, v.Address, v.Status, v.Body, v.Err, v.Took, v.At)
}

// traffics numbers them, so that no two send the same request.
var traffics atomic.Int32

// Drive begins; Stop ends it.
func Drive(addresses []string, rate int) *Traffic {
	ctx, cancel := context.WithCancel(context.Background())
	tr := &Traffic{cancel: cancel, done: make(chan struct{})}
	go tr.run(ctx, addresses, rate)
	return tr
}

func (tr *Traffic) run(ctx context.Context, addresses []string, rate int) {
	defer close(tr.done)
	clients := make([]*Client, len(addresses))
	for i, addr := range addresses {
		clients[i] = NewClient(addr, "")
		defer clients[i].Close()
	}
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	begun, prefix := time.Now(), fmt.Sprintf("/%d-", traffics.Add(1))
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		all.Go(func() {
			at := i % len(addresses)
			v := Visit{Method: "GET", Path: prefix + strconv.Itoa(i), Address: addresses[at]}
			if i/len(addresses)%2 == 0 {
				v.Method = "POST"
			}
			limit, end := context.WithTimeout(context.Background(), 30*time.Second)
			defer end()
			from := time.Now()
			a, err := clients[at].Do(limit, v.Method, v.Path, nil)
			v.Status, v.Body, v.Err, v.At, v.Took = a.Status, string(a.Body), err, time.Since(begun), time.Since(from)
			tr.mu.Lock()
			tr.visits = append(tr.visits, v)
			tr.mu.Unlock()
		})
	}
}

// Stop ends the traffic, waits for what is under way, and returns everything.
func (tr *Traffic) Stop() []Visit {
	tr.cancel()
	<-tr.done
	return tr.visits
}

// LongestGap is the longest time between two visits that were answered as they should.
func LongestGap(visits []Visit) time.Duration {
	var at []time.Duration
	for _, v := range visits {
		if v.OK() {
			at = append(at, v.At)
		}
	}
	slices.Sort(at)
	longest := time.Duration(0)
	for i := 1; i < len(at); i++ {
		longest = max(longest, at[i]-at[i-1])
	}
	return longest
}
