package dynamodb

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// Store is the HA lock in one item.
type Store struct {
	*cell.Lock
	minTTL    time.Duration
	transport *http.Transport
	once      sync.Once
}

var _ physical.HABackend = (*Store)(nil)

const (
	minTTL     = 2 * time.Second
	defaultTTL = 5 * time.Second
)

var caps = physical.Caps{
	Name: "dynamodb", HA: true, Shared: true, MinTTL: minTTL, DefaultTTL: defaultTTL,
	Failover: "DynamoDB is one service over several zones, and reads of the lock are consistent: while it answers nothing, the active node's lease ends, and nobody is active until it answers again. A global table's other regions must not be used: they are replicated later.",
}

// Caps returns what a DynamoDB table can do, for documentation.
func Caps() physical.Caps { return caps }

// Open reaches the table, and makes it if it is not there.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	client, transport, err := cfg.prepare(ctx)
	if err != nil {
		return nil, fmt.Errorf("dynamodb: %w", err)
	}
	it := &item{client: client, table: cfg.Table, key: cfg.Key}
	if err := it.ensureTable(ctx); err != nil {
		transport.CloseIdleConnections()
		return nil, fmt.Errorf("dynamodb: %w", err)
	}
	return &Store{Lock: cell.NewLock(it, nil), minTTL: cfg.minTTL, transport: transport}, nil
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps {
	c := caps
	c.MinTTL = s.minTTL
	return c
}

// Close ends everything that is under way. A lock that is held is left to run out.
func (s *Store) Close() error {
	s.once.Do(func() {
		_ = s.Lock.Close() // never fails
		s.transport.CloseIdleConnections()
	})
	return nil
}
