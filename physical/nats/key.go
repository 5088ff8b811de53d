package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// key is the lock's key: a cell whose version is the revision.
type key struct {
	store  *Store
	cfg    Config
	kv     jetstream.KeyValue
	stream jetstream.Stream
	start  sync.Once

	mu      sync.Mutex
	up      bool
	last    uint64        // the newest revision that the server told of
	changed chan struct{} // closed and made anew when there is a newer one
}

var _ cell.Waiter = (*key)(nil)

// maxValue bounds the lock's value; it is some 300 bytes.
const maxValue = 64 << 10

func (k *key) subject() string { return "$KV." + k.cfg.Bucket + "." + k.cfg.Key }

// open finds the bucket, or makes it.
func (k *key) open(ctx context.Context, js jetstream.JetStream) error {
	name := "KV_" + k.cfg.Bucket
	ctx, end := k.store.rights.using(ctx, "$JS.API.STREAM.")
	defer end()
	if k.cfg.Replicas > 1 {
		if err := replicable(k.store.conn.ConnectedServerVersion()); err != nil {
			return err
		}
	}
	stream, err := asked(ctx, k, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, name) })
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = asked(ctx, k, func(ctx context.Context) (jetstream.Stream, error) {
			return js.CreateStream(ctx, jetstream.StreamConfig{
				Name: name, Subjects: []string{"$KV." + k.cfg.Bucket + ".>"}, Description: "Locum's HA lock",
				Storage: jetstream.FileStorage, Replicas: k.cfg.Replicas, MaxMsgsPerSubject: 1, MaxMsgSize: maxValue,
				Discard: jetstream.DiscardNew, DenyDelete: true, AllowRollup: true, AllowDirect: false,
			})
		})
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was faster
			stream, err = js.Stream(ctx, name)
		}
	}
	if err != nil {
		return k.failed(ctx, err, false, "the bucket "+k.cfg.Bucket)
	}
	cfg := stream.CachedInfo().Config
	if cfg.Replicas > 1 {
		if err := replicable(k.store.conn.ConnectedServerVersion()); err != nil {
			return err
		}
	}
	if cfg.MaxAge != 0 {
		return fmt.Errorf("nats: the bucket %s has a TTL of %v: it would forget the lock's term; use one without", k.cfg.Bucket, cfg.MaxAge)
	}
	if cfg.AllowDirect && cfg.Replicas > 1 {
		cfg.AllowDirect = false
		if stream, err = js.UpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("nats: the bucket %s lets any replica answer (allow_direct), and that cannot be changed (%w); have Locum make the bucket itself", k.cfg.Bucket, plain(err))
		}
	}
	k.stream = stream
	k.kv, err = asked(ctx, k, func(ctx context.Context) (jetstream.KeyValue, error) { return js.KeyValue(ctx, k.cfg.Bucket) })
	if err != nil {
		return k.failed(ctx, err, false, "the bucket "+k.cfg.Bucket)
	}
	return nil
}

// replicable refuses servers of versions that check the revision of a replicated bucket before they replicate a write and not when they
// carry it out: of two writes that come at once both are accepted, and two nodes have the lock (nats-server, issue 4320).
func replicable(version string) error {
	const leastMajor, leastMinor = 2, 11
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("nats: the server calls its version %q", version)
	}
	if major > leastMajor || major == leastMajor && minor >= leastMinor {
		return nil
	}
	return fmt.Errorf("nats: the server is %s, and before %d.%d a bucket with replicas may take two writes of one revision: have newer servers, or a bucket with replicas = 1",
		version, leastMajor, leastMinor)
}

// askedFor is how long one request may take before it is made again: JetStream leaves unanswered what arrives while it elects a leader.
// pingedFor is how long the server itself may then take to answer: one that is frozen keeps its connections open.
const (
	askedFor  = time.Second
	pingedFor = 500 * time.Millisecond
)

// asked does what may be done twice.
func asked[R any](ctx context.Context, k *key, do func(context.Context) (R, error)) (R, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, askedFor)
		got, err := do(attempt)
		silent := err != nil && attempt.Err() != nil && ctx.Err() == nil
		cancel()
		if !silent {
			return got, err
		}
		if conn := k.store.conn; len(k.cfg.URLs) > 1 && errors.Is(conn.FlushTimeout(pingedFor), client.ErrTimeout) {
			_ = conn.ForceReconnect() // to the next server; closed: the next attempt says so
		}
	}
}

// Read asks the stream's leader for the newest value.
func (k *key) Read(ctx context.Context) (data []byte, version string, err error) {
	if err := k.store.connected(ctx); err != nil {
		return nil, "", err
	}
	ctx, end := k.store.rights.using(ctx, "$JS.API.STREAM.MSG.GET.")
	defer end()
	msg, err := asked(ctx, k, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return k.stream.GetLastMsgForSubject(ctx, k.subject())
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", k.failed(ctx, err, false, "read")
	}
	version = strconv.FormatUint(msg.Sequence, 10)
	if msg.Header.Get("KV-Operation") != "" { // somebody has deleted the key by hand
		return []byte(`{"format":1}`), version, nil
	}
	return msg.Data, version, nil
}

// Swap writes if the revision is still this one.
func (k *key) Swap(ctx context.Context, data []byte, version string) error {
	var revision uint64
	if version != "" {
		var err error
		if revision, err = strconv.ParseUint(version, 10, 64); err != nil {
			return err
		}
	}
	if err := k.store.connected(ctx); err != nil {
		return err
	}
	ctx, end := k.store.rights.using(ctx, k.subject())
	defer end()
	_, err := k.kv.Update(ctx, k.cfg.Key, data, revision)
	return k.failed(ctx, err, true, "write")
}

// failed translates the library's errors; writes says whether the call changes anything.
func (k *key) failed(ctx context.Context, err error, writes bool, doing string) error {
	var api *jetstream.APIError
	var denied *deniedError
	switch {
	case err == nil:
		return nil
	case errors.As(context.Cause(ctx), &denied):
		return fmt.Errorf("%w: NATS: %s: %w", physical.ErrUnavailable, doing, denied)
	case errors.As(err, &api):
		return refused(api, doing)
	case notSent(err) && k.store.ctx.Err() == nil:
		return fmt.Errorf("%w: NATS: %s: %w", physical.ErrUnavailable, doing, plain(err))
	case writes:
		return fmt.Errorf("%w: NATS: %s: %w", physical.ErrUnknown, doing, plain(err))
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: NATS: %s: %w", physical.ErrUnavailable, doing, plain(err))
}

// notSent reports whether a call failed without anything having reached JetStream.
func notSent(err error) bool {
	for _, kind := range []error{
		client.ErrNoResponders, jetstream.ErrNoStreamResponse, client.ErrReconnectBufExceeded, client.ErrDisconnected,
		jetstream.ErrJetStreamNotEnabled,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// noPeers: not enough servers are there just now to keep the replicas.
const noPeers = 10005

// refused translates what the server itself said: it did nothing.
func refused(api *jetstream.APIError, doing string) error {
	switch {
	case api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return cell.ErrChanged
	case api.Code == 503 || api.Code == 408 || api.ErrorCode == noPeers:
		return fmt.Errorf("%w: NATS: %s: %w", physical.ErrUnavailable, doing, plain(api))
	}
	return fmt.Errorf("NATS: %s: %w", doing, plain(api))
}

// pollEvery is how often the lock is looked at while the server cannot tell of its changes, and lookEvery while it should: a watch whose
// server was lost to the others is noticed after some seconds only.
const (
	pollEvery = 100 * time.Millisecond
	lookEvery = time.Second
)

// Wait returns when there may be a newer revision than this, or when ctx ends.
func (k *key) Wait(ctx context.Context, version string) error {
	k.start.Do(func() { k.store.spawn(k.run) })
	var seen uint64
	if version != "" {
		var err error
		if seen, err = strconv.ParseUint(version, 10, 64); err != nil {
			return err
		}
	}
	k.mu.Lock()
	newer, up, changed := k.last > seen, k.up, k.changed
	k.mu.Unlock()
	if newer {
		return nil
	}
	pause := lookEvery
	if !up {
		pause = pollEvery
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// tell wakes all who wait.
func (k *key) tell(up bool, revision uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.up, k.last = up, max(k.last, revision)
	close(k.changed)
	k.changed = make(chan struct{})
}

// run has the server tell of new revisions until the store is closed.
func (k *key) run() {
	ctx := k.store.ctx
	const least = 100 * time.Millisecond
	for pause := least; ctx.Err() == nil; pause = min(2*pause, 5*time.Second) {
		err := k.follow(ctx)
		if errors.Is(err, errAgain) {
			pause = least
			continue
		}
		if ctx.Err() == nil {
			k.cfg.Logger.Warn("NATS does not tell of changes of the lock; polling", "error", err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// errAgain: the connection was made again. The library notices only after some seconds that a watch from before it is dead.
var errAgain = errors.New("the connection was made again")

// follow takes revisions from one watch until it ends.
func (k *key) follow(ctx context.Context) error {
	again := k.store.nextConnection()
	w, err := k.kv.Watch(ctx, k.cfg.Key, jetstream.UpdatesOnly()) // what there is by now, who waits reads
	if err != nil {
		return plain(err)
	}
	defer func() { _ = w.Stop() }()
	k.tell(true, 0)
	defer k.tell(false, 0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			return errAgain
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errors.New("the watch ended")
			case e != nil:
				k.tell(true, e.Revision())
			}
		}
	}
}
