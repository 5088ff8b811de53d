package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/cache/resp"
	"github.com/locum-ha/locum/internal/footprint"
	"github.com/locum-ha/locum/internal/processors"
)

// The processes of the cache's part, each with a control port on which it is told what to measure, in itself:
//
//	cache HOSTS SELF RESP CONTROL TLS     a node of a cache; TLS is true or false
//	raft HOSTS SELF CONTROL               a node of hashicorp/raft with everything in memory, over plain TCP
//
// Control, by one client: GET /daemon?on=true (it keeps house as locum server does), /put?inflight=16&for=2s, /get?goroutines=2&for=1s, /fill?entries=1000000, /memory, /leads, /missing?keys=500&value=1.

// gauged is one answer of a control port.
type gauged struct {
	Rate  float64       `json:"rate"` // per second
	P50   time.Duration `json:"p50"`
	P99   time.Duration `json:"p99"`
	Nanos float64       `json:"nanos"` // per call, of one caller
	Heap  uint64        `json:"heap"`
	Leads bool          `json:"leads"`
	Good  bool          `json:"good"`
	Count int64         `json:"count"`
}

// controlled is what a process can be told to do.
type controlled struct {
	put   func(ctx context.Context, key string, value []byte) error
	get   func(key string) error
	state func() (leads, good bool, count int64)
	has   func(ctx context.Context, key, value string) (bool, error) // by a consistent read; nil for raft
}

func (c controlled) serve(ctx context.Context, address string) error {
	mux := http.NewServeMux()
	handle := func(path string, f func(ctx context.Context, q func(string) string) (gauged, error)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			m, err := f(r.Context(), r.URL.Query().Get)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(m) // who asked may be gone
		})
	}
	handle("/put", func(ctx context.Context, q func(string) string) (gauged, error) {
		inflight, _ := strconv.Atoi(q("inflight"))
		length, err := time.ParseDuration(q("for"))
		if err != nil {
			return gauged{}, err
		}
		return c.puts(ctx, inflight, length)
	})
	handle("/get", func(_ context.Context, q func(string) string) (gauged, error) {
		goroutines, _ := strconv.Atoi(q("goroutines"))
		length, err := time.ParseDuration(q("for"))
		if err != nil {
			return gauged{}, err
		}
		return c.gets(goroutines, length)
	})
	handle("/fill", func(ctx context.Context, q func(string) string) (gauged, error) {
		n, err := strconv.Atoi(q("entries"))
		if err != nil {
			return gauged{}, err
		}
		return gauged{}, c.fill(ctx, n)
	})
	handle("/memory", func(context.Context, func(string) string) (gauged, error) {
		runtime.GC()
		runtime.GC() // what finalizers kept
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_, _, count := c.state()
		return gauged{Heap: m.HeapAlloc, Count: count}, nil
	})
	handle("/leads", func(context.Context, func(string) string) (gauged, error) {
		leads, good, count := c.state()
		return gauged{Leads: leads, Good: good, Count: count}, nil
	})
	daemon := func() {}
	handle("/daemon", func(_ context.Context, q func(string) string) (gauged, error) {
		daemon()
		daemon = func() {}
		if q("on") == "true" {
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() { processors.Keep(ctx) })
			wg.Go(func() { footprint.Breathe(ctx, footprint.CacheHeadroom) })
			daemon = func() {
				cancel()
				wg.Wait()
			}
		}
		return gauged{}, nil
	})
	handle("/missing", func(ctx context.Context, q func(string) string) (gauged, error) {
		keys, err := strconv.Atoi(q("keys"))
		var m gauged
		for i := 0; err == nil && i < keys; i++ {
			var has bool
			if has, err = c.has(ctx, fmt.Sprintf("kill:%d", i), q("value")); !has {
				m.Count++
			}
		}
		return m, err
	})
	return serve(ctx, &http.Server{Addr: address, Handler: mux}, false)
}

// puts keeps so many writes in flight for a time.
func (c controlled) puts(ctx context.Context, inflight int, length time.Duration) (gauged, error) {
	each := make([][]time.Duration, inflight)
	errs := make([]error, inflight)
	value := []byte(strings.Repeat("v", 100))
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range inflight {
		wg.Go(func() {
			for time.Since(start) < length && errs[i] == nil {
				begin := time.Now()
				errs[i] = c.put(ctx, fmt.Sprintf("put:%d", next.Add(1)%100000), value)
				each[i] = append(each[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	all := slices.Sorted(slices.Values(slices.Concat(each...)))
	if err := errors.Join(errs...); err != nil || len(all) == 0 {
		return gauged{}, fmt.Errorf("%d writes: %w", len(all), err)
	}
	return gauged{Rate: float64(len(all)) / elapsed.Seconds(), P50: all[len(all)/2], P99: all[len(all)*99/100]}, nil
}

// gets reads as fast as so many goroutines can, and tells how long one call takes where each has a core of its own: with more
// goroutines than cores, the time of all cores is divided.
func (c controlled) gets(goroutines int, length time.Duration) (gauged, error) {
	var calls atomic.Int64
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range goroutines {
		wg.Go(func() {
			keys := make([]string, 1000)
			for j := range keys {
				keys[j] = fmt.Sprintf("put:%d", 1+(i*997+j*31)%1000)
			}
			for n := int64(0); ; n++ {
				if n%1024 == 0 && time.Since(start) > length {
					calls.Add(n)
					return
				}
				if err := c.get(keys[n%1000]); err != nil && errs[i] == nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	cores := min(goroutines, runtime.GOMAXPROCS(0))
	return gauged{
		Rate:  float64(calls.Load()) / time.Since(start).Seconds(),
		Nanos: float64(time.Since(start).Nanoseconds()) * float64(cores) / float64(calls.Load()),
	}, errors.Join(errs...)
}

func (c controlled) fill(ctx context.Context, n int) error {
	const callers = 256
	value := []byte(strings.Repeat("v", 100))
	errs := make([]error, callers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for errs[i] == nil {
				k := next.Add(1)
				if k > int64(n) {
					return
				}
				errs[i] = c.put(ctx, fmt.Sprintf("fill:%011d", k), value)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// cacheRole is a node of a cache.
func cacheRole(ctx context.Context, hosts, self, respAddress, control, tls string) error {
	node, err := cache.New(cache.Config{
		Hosts: strings.Split(hosts, ","), Self: self, AuthToken: "only-for-measuring-0123456789", TLS: cache.TLS{Disabled: tls == "false"},
		Default: cache.Options{MaxEntries: 4_000_000, MaxBytes: 4 << 30},
	})
	if err != nil {
		return err
	}
	server, err := resp.New(resp.NewShared(node, 16, self, "bench"), resp.Config{Address: respAddress})
	if err != nil {
		return err
	}
	in := node.Cache(cache.DefaultCache)
	c := controlled{
		put: func(ctx context.Context, key string, value []byte) error {
			_, err := in.Put(ctx, key, value, cache.NoExpiry, cache.Quorum)
			return err
		},
		get: func(key string) error {
			_, err := in.Get(context.Background(), key, cache.Local)
			return err
		},
		has: func(ctx context.Context, key, value string) (bool, error) {
			item, err := in.Get(ctx, key, cache.Consistent)
			if errors.Is(err, cache.ErrNotFound) {
				return false, nil
			}
			return string(item.Value) == value, err
		},
		state: func() (bool, bool, int64) {
			h := node.Health()
			entries, err := in.Len(context.Background())
			return h.State == cache.Leads, err == nil && h.Status != cache.Bad, entries
		},
	}
	return together(ctx, node.Run, server.Run, func(ctx context.Context) error { return c.serve(ctx, control) })
}

// together runs all until one of them ends.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, f := range all {
		wg.Go(func() {
			defer cancel()
			errs[i] = f(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
