package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/locum-ha/locum/physical"
)

// Config says where the store is.
type Config struct {
	// Path is the folder. It is made if it does not exist; nobody but its owner can read it. Required.
	Path string
	// Logger gets one line if the disk fails. nil: slog.Default.
	Logger *slog.Logger
}

// The limits keep a commit within what can be held in memory a few times over (P12). A key's is bbolt's.
const (
	maxKey    = bolt.MaxKeySize
	maxValue  = 8 << 20
	maxCommit = 16 << 20
)

var caps = physical.Caps{
	Name:      "file",
	Entries:   true,
	MaxKey:    maxKey,
	MaxValue:  maxValue,
	MaxCommit: maxCommit,
	Failover:  "One process on one machine: entries survive its crash and are as safe as its disk.",
}

// Store is an open folder. It is a [physical.Backend] and no HABackend.
type Store struct {
	path   string
	logger *slog.Logger
	db     *bolt.DB
	queue  chan *request

	once    sync.Once
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the writer has returned
	failed  atomic.Pointer[error]
}

var _ physical.Backend = (*Store)(nil)

// Open opens the folder, or makes it. The store is locked to this process until Close: while another has
// it the error is [ErrInUse].
func Open(config Config) (*Store, error) {
	s := &Store{
		path:    config.Path,
		logger:  config.Logger,
		queue:   make(chan *request, maxBatch),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	db, err := openFile(config.Path)
	if err != nil {
		return nil, fmt.Errorf("file storage in %q: %w", config.Path, err)
	}
	s.db = db
	go s.write()
	return s, nil
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return caps }

// Close waits for the transaction that is being written, if any, and unlocks the folder.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		<-s.stopped
		err = s.db.Close()
	})
	return err
}

// usable returns why a method cannot be carried out, or nil.
func (s *Store) usable(ctx context.Context) error {
	select {
	case <-s.closing:
		return physical.ErrClosed
	default:
	}
	if failed := s.failed.Load(); failed != nil {
		return *failed
	}
	return ctx.Err()
}

// view reads in one transaction.
func (s *Store) view(ctx context.Context, read func(tx *bolt.Tx) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	err := s.db.View(read)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return physical.ErrClosed
	}
	return err
}

// lockTimeout is how long Open waits for a process that is about to end.
const lockTimeout = 200 * time.Millisecond
