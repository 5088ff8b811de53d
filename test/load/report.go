package load

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Report is what a run counted.
type Report struct {
	Plan    Plan
	Records []Record      // in the order of their ends
	Until   time.Duration // the run's end
}

// Failed counts the requests of a method ("" for all) that did not succeed.
func (r *Report) Failed(method string) int {
	n := 0
	for i := range r.Records {
		if (method == "" || r.Records[i].Method == method) && !r.Records[i].OK() {
			n++
		}
	}
	return n
}

// Kinds counts the failures by method and kind.
func (r *Report) Kinds() map[string]int {
	kinds := map[string]int{}
	for i := range r.Records {
		if rec := &r.Records[i]; !rec.OK() {
			kind := rec.Err
			if rec.Wrong != "" {
				kind = "WRONG: " + rec.Wrong
			}
			if len(kind) > 110 {
				kind = kind[:110]
			}
			kinds[fmt.Sprintf("%s at %s: %d %s %s", rec.Method, rec.Target, rec.Status, rec.Processed, kind)]++
		}
	}
	return kinds
}

// Gap is the longest time between two successes, between from and to (0: the end). The times of the window's
// ends count as successes, so that a run that never succeeds again has a gap.
func (r *Report) Gap(method string, from, to time.Duration) time.Duration {
	if to == 0 {
		to = r.Until
	}
	last, gap := from, time.Duration(0)
	times := make([]time.Duration, 0, len(r.Records))
	for i := range r.Records {
		if rec := &r.Records[i]; (method == "" || rec.Method == method) && rec.OK() && rec.Done > from && rec.Done < to {
			times = append(times, rec.Done)
		}
	}
	slices.Sort(times)
	for _, t := range append(times, to) {
		gap = max(gap, t-last)
		last = t
	}
	return gap
}

// Latency returns a quantile (0 to 1) of the time from schedule to answer over all successes.
func (r *Report) Latency(method string, quantile float64) time.Duration {
	var all []time.Duration
	for i := range r.Records {
		if rec := &r.Records[i]; (method == "" || rec.Method == method) && rec.OK() {
			all = append(all, rec.Done-rec.Scheduled)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(quantile*float64(len(all))))]
}

// Twice is what Verify found.
type Twice struct {
	Writes  int      // writes that were asked for
	Applied int      // of these, found stored
	Twice   []string // keys that were written more than once
	Lost    []string // acknowledged keys that are not there, or hold something else
}

// Verify asks, after a run, for the history of every entry that the run wrote: each has exactly one version
// if its write was acknowledged, and at most one if not.
func (r *Report) Verify(ctx context.Context, client *Client) (Twice, error) {
	var result Twice
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	work := make(chan *Record)
	for range 16 {
		wg.Go(func() {
			for rec := range work {
				versions, wrong, err := r.lookup(ctx, client, rec)
				mu.Lock()
				switch {
				case err != nil && first == nil:
					first = fmt.Errorf("verifying %s: %w", rec.Key, err)
				case versions > 1:
					result.Twice = append(result.Twice, fmt.Sprintf("%s (%d versions)", rec.Key, versions))
				case rec.OK() && (versions == 0 || wrong != ""):
					result.Lost = append(result.Lost, fmt.Sprintf("%s (%d versions) %s", rec.Key, versions, wrong))
				}
				result.Writes++
				if versions > 0 {
					result.Applied++
				}
				mu.Unlock()
			}
		})
	}
	for i := range r.Records {
		if r.Records[i].Method == http.MethodPost {
			work <- &r.Records[i]
		}
	}
	close(work)
	wg.Wait()
	return result, first
}

// lookup returns how many times a key was written, and what is wrong with its content.
func (r *Report) lookup(ctx context.Context, client *Client, rec *Record) (versions int, wrong string, err error) {
	versions, err = Versions(ctx, client, r.Plan.path(rec.Key))
	if err != nil || versions == 0 {
		return versions, "", err
	}
	answer, err := client.Do(ctx, http.MethodGet, r.Plan.path(rec.Key), nil)
	if err != nil {
		return versions, "", err
	}
	if answer.Status != http.StatusOK {
		return versions, fmt.Sprintf("read gives status %d", answer.Status), nil
	}
	return versions, r.Plan.wrong(rec.Key, answer.Body), nil
}

// String is a short summary with every kind of failure.
func (r *Report) String() string {
	var b strings.Builder
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		sent := 0
		for i := range r.Records {
			if r.Records[i].Method == method {
				sent++
			}
		}
		fmt.Fprintf(&b, "%s: %d sent, %d failed, gap %v, latency p50 %v p99 %v max %v\n", method, sent, r.Failed(method),
			r.Gap(method, 0, 0).Round(time.Millisecond), r.Latency(method, .5).Round(10*time.Microsecond),
			r.Latency(method, .99).Round(10*time.Microsecond), r.Latency(method, 1).Round(time.Millisecond))
	}
	kinds := r.Kinds()
	lines := make([]string, 0, len(kinds))
	for kind, n := range kinds {
		lines = append(lines, fmt.Sprintf("  %5d × %s\n", n, kind))
	}
	sort.Strings(lines)
	b.WriteString(strings.Join(lines[:min(len(lines), 20)], ""))
	return b.String()
}
