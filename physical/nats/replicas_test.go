package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// A bucket with three replicas: one server after another is killed and started again. A replica that lags behind would answer a read
// if the bucket allowed it, as one does that others made: Locum has its leader alone answer.
func TestReplicas(t *testing.T) {
	if !storeserver.Faults() {
		t.Skip("three servers: make faults STORE=nats")
	}
	servers := storeserver.StartNewestNATSs(t, 3)
	conn, err := client.Connect(servers[0].URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // also once more, before the suites count goroutines
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the servers are a cluster", func() error {
		_, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "others", Replicas: 3})
		return err
	})
	for bucket, direct := range map[string]bool{"others": true, "own": false} {
		if stream, err := js.Stream(t.Context(), "KV_"+bucket); direct && (err != nil || !stream.CachedInfo().Config.AllowDirect) {
			t.Errorf("the bucket that others made is none that any replica answers for: %v", err)
		}
		until(t, "the bucket is open", func() error {
			s, err := open(Config{URLs: []string{servers[1].URL("")}, Bucket: bucket, Replicas: 3})
			if err == nil {
				err = s.Close()
			}
			return err
		})
		stream, err := js.Stream(t.Context(), "KV_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		if c := stream.CachedInfo().Config; c.AllowDirect || c.Replicas != 3 {
			t.Errorf("%s: allow_direct %v, %d replicas", bucket, c.AllowDirect, c.Replicas)
		}
	}
	conn.Close()
	t.Run("FrozenServer", func(t *testing.T) { frozenServer(t, servers) })
	var buckets, victim atomic.Int64
	leastTTL := Caps().MinTTL
	harness := func(t testing.TB) physicaltest.Store {
		bucket := fmt.Sprintf("r%d", buckets.Add(1))
		var mu sync.Mutex
		proxies := map[int][]*storeserver.Proxy{}
		of := func(n int) []*storeserver.Proxy {
			mu.Lock()
			defer mu.Unlock()
			for i := 0; len(proxies[n]) < len(servers); i++ {
				proxies[n] = append(proxies[n], storeserver.NewProxy(t, servers[(n+i)%len(servers)].Addr))
			}
			return proxies[n]
		}
		all := func(n int, do func(*storeserver.Proxy)) func() {
			for _, p := range of(n) {
				do(p)
			}
			return func() {
				for _, p := range of(n) {
					p.Heal()
				}
			}
		}
		return physicaltest.Store{
			Open: func(n int) (physicaltest.Handle, error) {
				var urls []string
				for i, p := range of(n) {
					urls = append(urls, servers[i].URL(p.Addr()))
				}
				var s *Store
				var err error
				until(t, "the bucket is open", func() error { // there are too few servers for it after a restart
					s, err = open(Config{URLs: urls, Bucket: bucket, Replicas: 3})
					if errors.Is(err, physical.ErrUnavailable) {
						return err
					}
					return nil
				})
				return lasting{s, leastTTL}, err
			},
			Restart: func() error {
				server := servers[victim.Add(1)%int64(len(servers))]
				server.Kill()
				return server.Start()
			},
			Isolate:    func(n int) func() { return all(n, (*storeserver.Proxy).Stall) },
			CutAnswers: func(n int) func() { return all(n, (*storeserver.Proxy).CutAnswers) },
			Settle:     30 * time.Second,
			Late:       5 * time.Second, // a bucket whose leader was killed elects another one first
		}
	}
	physicaltest.HABackend(t, harness)
	leastTTL = 10 * time.Second // which docs/stores/nats.md says rides out a change of the stream's leader
	physicaltest.LockOutages(t, harness, 3)
}

// frozenServer: the server that a node is connected to is frozen, which keeps the connection open. The lock is renewed over another one
// before a TTL that rides out a change of the stream's leader, which the frozen server may have been.
func frozenServer(t *testing.T, servers []*storeserver.NATS) {
	const ttl = 10 * time.Second
	cfg := Config{Bucket: "frozen", Replicas: 3}
	for _, s := range servers {
		cfg.URLs = append(cfg.URLs, s.URL(""))
	}
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Acquire(t.Context(), holder, ttl, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(servers, func(one *storeserver.NATS) bool { return one.Addr == s.conn.ConnectedAddr() })
	if at < 0 {
		t.Fatalf("connected to %s", s.conn.ConnectedAddr())
	}
	servers[at].Pause()
	defer servers[at].Resume()
	until(t, "the server is frozen", func() error {
		if s.conn.FlushTimeout(100*time.Millisecond) == nil {
			return errors.New("it answers")
		}
		return nil
	})
	start := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), ttl/2)
		_, err := s.Renew(ctx, g)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, physical.ErrUnavailable) && !errors.Is(err, physical.ErrUnknown) && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v after the freeze: %v", time.Since(start), err)
		}
	}
	t.Logf("renewed %v after the freeze of server %d", time.Since(start), at)
}

// lasting is a store with another shortest TTL.
type lasting struct {
	*Store
	least time.Duration
}

func (l lasting) Caps() physical.Caps {
	c := l.Store.Caps()
	c.MinTTL = l.least
	return c
}

// until waits until do returns nil.
func until(t testing.TB, what string, do func() error) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-ticker.C {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
