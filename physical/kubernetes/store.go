package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// Store is the HA lock in one Lease.
type Store struct {
	*cell.Lock
	lease     *lease
	minTTL    time.Duration
	transport *http.Transport
	once      sync.Once
}

var (
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
)

const (
	minTTL     = 2 * time.Second
	defaultTTL = 5 * time.Second
)

var caps = physical.Caps{
	Name: "kubernetes", HA: true, Shared: true, Watch: true, MinTTL: minTTL, DefaultTTL: defaultTTL,
	Failover: "The Lease lies in the API servers' etcd and is read consistently: while the control plane answers nothing, the active node's lease ends, and nobody is active until it answers again.",
}

// Caps returns what a Lease can do, for documentation.
func Caps() physical.Caps { return caps }

// Open checks that the Lease can be read, whether or not it is there yet.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	transport, err := cfg.prepare()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	l := &lease{
		client: &http.Client{Transport: transport}, tokenFile: cfg.TokenFile, namespace: cfg.Namespace, name: cfg.Name,
		collection: cfg.Server + "/apis/coordination.k8s.io/v1/namespaces/" + cfg.Namespace + "/leases",
	}
	if _, _, err := l.Read(ctx); err != nil {
		transport.CloseIdleConnections()
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return &Store{Lock: cell.NewLock(l, nil), lease: l, minTTL: cfg.minTTL, transport: transport}, nil
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps {
	c := caps
	c.MinTTL = s.minTTL
	return c
}

// Watch waits until the record of the lock differs from seen, or until its holder's time is over.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	return cell.Watch(ctx, s.Lock, s.lease, seen)
}

// Close ends everything that is under way. A lock that is held is left to run out.
func (s *Store) Close() error {
	s.once.Do(func() {
		_ = s.Lock.Close() // never fails
		s.transport.CloseIdleConnections()
	})
	return nil
}
