package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// Store is the entries and the lock under one path of a bucket.
type Store struct {
	*cell.Lock
	cfg       Config
	objects   objects
	transport *http.Transport
	views     views
	pages     pageCache
	commits   committer
	garbage   collector

	life context.Context
	end  context.CancelCauseFunc
	wg   sync.WaitGroup // every goroutine of the store
	once sync.Once
}

var (
	_ physical.Backend   = (*Store)(nil)
	_ physical.HABackend = (*Store)(nil)
)

const (
	minTTL     = 2 * time.Second
	defaultTTL = 5 * time.Second
)

// caps are the store's, of any bucket.
var caps = physical.Caps{
	Name: "s3", Entries: true, HA: true, Shared: true,
	MaxKey: 2 << 10, MaxValue: 4 << 20, MaxOps: 512, MaxCommit: 16 << 20,
	MinTTL: minTTL, DefaultTTL: defaultTTL,
	Failover: "S3 is one consistent service over several zones: while it answers nothing, the active node's lease ends, and nobody is active until it answers again.",
}

// Caps returns what an S3 bucket can do, for documentation.
func Caps() physical.Caps { return caps }

// Open reaches the bucket and makes sure that the service honours conditional writes. Nothing else is written.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Store, error) {
	client, transport, err := cfg.prepare(ctx)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, transport: transport, objects: newObjects(client, cfg.Bucket, cfg.Path+"/")}
	if err := s.objects.probe(ctx); err != nil {
		transport.CloseIdleConnections()
		return nil, err
	}
	s.Lock = cell.NewLock(&lockObject{&s.objects}, nil)
	s.life, s.end = context.WithCancelCause(context.Background())
	s.views.store, s.commits.store, s.garbage.store = s, s, s
	s.pages.most = cachedBytes
	s.commits.wake = make(chan struct{}, 1)
	s.garbage.wake = make(chan struct{}, 1)
	s.wg.Go(s.commits.run)
	s.wg.Go(s.garbage.run)
	return s, nil
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps {
	c := caps
	c.MinTTL = s.cfg.minTTL
	return c
}

// Close ends everything that is under way. A lock that is held is left to run out.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.end(physical.ErrClosed)
		_ = s.Lock.Close() // never fails
		s.views.close()
		s.wg.Wait()
		s.transport.CloseIdleConnections()
	})
	return nil
}

// enter gives a method's context, which ends with the store too. The method returns leave's error.
func (s *Store) enter(ctx context.Context) (_ context.Context, leave func(error) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(physical.ErrClosed) })
	if s.life.Err() != nil {
		cancel(physical.ErrClosed)
	}
	return ctx, func(err error) error {
		closed := s.life.Err() != nil
		stop()
		cancel(nil)
		if err != nil && closed && !errors.Is(err, physical.ErrUnknown) {
			return physical.ErrClosed
		}
		return err
	}
}

// lockObject is the object of the HA lock as a cell.
type lockObject struct{ objects *objects }

// Read returns the lock's value and its ETag.
func (l *lockObject) Read(ctx context.Context) ([]byte, string, error) {
	data, etag, err := l.objects.get(ctx, lockName, "")
	if errors.Is(err, errNoObject) {
		return nil, "", nil
	}
	return data, etag, err
}

// Swap replaces the value of this ETag.
func (l *lockObject) Swap(ctx context.Context, data []byte, etag string) error {
	_, err := l.objects.swap(ctx, lockName, data, etag)
	if errors.Is(err, errNoObject) {
		return fmt.Errorf("%w: the lock's object was deleted", cell.ErrChanged)
	}
	return err
}
