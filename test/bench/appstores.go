package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/stores"
)

// lockPlace is where the lock is: in the store that keeps the entries too, or in one beside it.
type lockPlace struct {
	external
	lock func(stores.T) *stores.Server // nil: the same
}

// with starts the stores for as long as run takes.
func (e lockPlace) with(o options, run func(cluster.Options) error) (err error) {
	t := &host{}
	defer func() {
		if r := recover(); r != nil {
			fatal, ok := r.(fatality)
			if !ok {
				panic(r)
			}
			err = fatal.error
		}
		t.end()
	}()
	server := e.start(t)
	options := server.Direct()
	if e.lock != nil {
		lock, entries := e.lock(t), options.Storage
		options.Storage = func(n *cluster.Node) string {
			label, body := lock.Block(lock.Addr)
			return entries(n) + fmt.Sprintf("ha_storage %q {\n%s}\n", label, body)
		}
	}
	options.Dir = filepath.Join(o.dir, strings.Fields(e.name)[0])
	return run(options)
}

// appStores is a crash and a loss of the machine on every other store.
func appStores(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Applications: crash on every store",
		How: "As above, a cold application, with the store's TTL as it is unless configured. After a crash the guardian releases the lock on the dead node's behalf; after the loss of the " +
			"machine nobody does, and the limit is the TTL and a second, as stated per store: ZooKeeper adds its tick, and Consul's servers count a TTL of at least 10 s twice. " +
			"Redis and NATS keep the lock, PostgreSQL the entries beside them. Kubernetes and DynamoDB have no server that could be measured here.",
		Header: []string{"store", "application", "what", "rounds", "gap", "requests", "failed GET", "failed POST"}}
	var failed error
	all := []lockPlace{{external{name: "redis", limit: 6 * time.Second, start: stores.PostgreSQL}, stores.Redis}, {external{name: "nats", limit: 6 * time.Second, start: stores.PostgreSQL}, stores.NATS}}
	for _, e := range externals {
		all = append(all, lockPlace{external: e})
	}
	for _, e := range all {
		if only := os.Getenv("LOCUM_STORE"); only != "" && !strings.HasPrefix(e.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "  %s…\n", e.name)
		f := &appFault{store: e.name, standby: "cold", crashes: o.rounds(3), losses: o.rounds(3), lossLimit: e.limit}
		if err := e.with(o, func(options cluster.Options) error { return f.run(ctx, options, s) }); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", e.name, err))
		}
	}
	return s, failed
}
