package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/etcd"
)

// leaderOf is the server that leads.
func leaderOf(t *testing.T, servers []*storeserver.Etcd) *storeserver.Etcd {
	t.Helper()
	for _, s := range servers {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + s.Addr}})
		if err != nil {
			t.Fatal(err)
		}
		status, err := client.Status(t.Context(), s.Addr)
		_ = client.Close()
		if err != nil {
			t.Fatal(err)
		}
		if status.Leader == status.Header.MemberId {
			return s
		}
	}
	t.Fatal("nobody leads")
	return nil
}

// "Several endpoints": the leading server of three is frozen, which keeps its connections open. The lock of a node that names all
// three is renewed in time all along, reads go to the next server, and writes go on after the 12 s
// that docs/stores/etcd.md names.
func TestFrozenServer(t *testing.T) {
	if !storeserver.Faults() {
		t.Skip("three servers: make faults STORE=etcd")
	}
	servers := storeserver.StartEtcds(t, 3, "--heartbeat-interval", "40", "--election-timeout", "400")
	config := etcd.Config{Path: "frozen"}
	for _, s := range servers {
		config.Endpoints = append(config.Endpoints, "http://"+s.Addr)
	}
	store, err := etcd.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
		t.Fatal(err)
	}
	const ttl = 5 * time.Second // as it comes
	renewed := time.Now()
	g, err := store.Acquire(t.Context(), physical.Record{Holder: "a"}, ttl, 0)
	if err != nil || g.TTL != ttl {
		t.Fatalf("acquire: %+v, %v", g, err)
	}

	frozen := leaderOf(t, servers)
	frozen.Pause()
	defer frozen.Resume()
	start := time.Now()
	done, stop := context.WithTimeout(t.Context(), 16*time.Second)
	defer stop()
	var all sync.WaitGroup
	all.Go(func() { // as election does: attempts of half a TTL, some under way at a time
		var mu sync.Mutex
		for done.Err() == nil {
			all.Go(func() {
				sent := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), ttl/2)
				defer cancel()
				_, err := store.Renew(ctx, g)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, physical.ErrLost):
					t.Errorf("the lock was lost: %v", err)
					stop()
				case err == nil && sent.After(renewed):
					if gap := sent.Sub(renewed); gap >= ttl {
						t.Errorf("no renewal for %v", gap)
					}
					renewed = sent
				}
			})
			every(done, ttl/6)
		}
	})
	all.Go(func() {
		for slowest := time.Duration(0); ; every(done, 50*time.Millisecond) {
			if done.Err() != nil {
				t.Logf("the slowest read took %v", slowest)
				return
			}
			read := time.Now()
			if _, err := store.Get(t.Context(), "a"); err != nil {
				t.Errorf("read: %v", err)
			}
			slowest = max(slowest, time.Since(read))
		}
	})
	const noticed = 12 * time.Second
	last, failed := time.Duration(0), error(nil)
	for n := 0; done.Err() == nil; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), noticed+20*time.Second)
		err := store.Commit(ctx, nil, physical.Put(fmt.Sprint(n%10), nil))
		cancel()
		if err != nil {
			last, failed = time.Since(start), err
		}
		every(done, 20*time.Millisecond)
	}
	all.Wait()
	t.Logf("the last write that failed: after %v: %v", last, failed)
	if failed != nil && !errors.Is(failed, physical.ErrUnknown) && !errors.Is(failed, physical.ErrUnavailable) {
		t.Errorf("a write: %v", failed)
	}
	if last > noticed+3*time.Second || time.Since(start) > 22*time.Second {
		t.Errorf("writes failed until %v after the freeze, the last one ended after %v; want them to go on after %v", last, time.Since(start), noticed)
	}
	if since := time.Since(renewed); since >= ttl {
		t.Errorf("no renewal for %v", since)
	}
}

// every waits.
func every(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
