package resp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"github.com/locum-ha/locum/cache"
)

// Shared is a [Store] in a replicated cache. Database 0 is the cache [cache.DefaultCache], n is "db" and n.
type Shared struct {
	node    *cache.Node
	caches  []*cache.Cache
	self    string
	version string
	started time.Time
}

// NewShared makes one. Self is the node's entry in its list of hosts, version is Locum's, both for INFO.
func NewShared(node *cache.Node, databases int, self, version string) *Shared {
	s := &Shared{node: node, self: self, version: version, started: time.Now()}
	for n := range databases {
		s.caches = append(s.caches, node.Cache(databaseName(n)))
	}
	return s
}

func databaseName(n int) string {
	if n == 0 {
		return cache.DefaultCache
	}
	return "db" + strconv.Itoa(n)
}

// Get reads what this node has, once it has everything that was acknowledged here.
func (s *Shared) Get(db int, key []byte) (Entry, bool, error) {
	item, err := s.caches[db].Get(context.Background(), unsafe.String(unsafe.SliceData(key), len(key)), cache.OwnWrites) // the key is not kept
	switch {
	case err == nil:
		return Entry{Value: item.Value, TTL: remainder(item.TTL), Version: item.Version}, true, nil
	case errors.Is(err, cache.ErrNotFound):
		return Entry{}, false, nil
	}
	return Entry{}, false, translate(err)
}

// remainder is a TTL as this package has it: 0 for none.
func remainder(ttl time.Duration) time.Duration { return max(ttl, 0) }

// Scan lists keys.
func (s *Shared) Scan(db int, cursor uint64, count int) ([]string, uint64, error) {
	keys, next, err := s.caches[db].Scan(context.Background(), cursor, count, cache.OwnWrites)
	return keys, next, translate(err)
}

// Len counts keys.
func (s *Shared) Len(db int) (int, error) {
	n, err := s.caches[db].Len(context.Background())
	return int(n), translate(err)
}

// Apply is one transaction of the cache.
func (s *Shared) Apply(ctx context.Context, db int, level Level, tx Tx) ([]Result, bool, error) {
	name := s.caches[db].Name()
	txn := cache.Txn{Ops: make([]cache.Op, 0, max(len(tx.Ops), 1))}
	for _, w := range tx.Watch {
		txn.Watch = append(txn.Watch, cache.Watch{Cache: name, Key: string(w.Key), Version: w.Version})
	}
	for i := range tx.Ops {
		op := translateOp(&tx.Ops[i])
		op.Cache = name
		txn.Ops = append(txn.Ops, op)
	}
	if len(tx.Ops) == 0 { // it goes through the log, behind what went before
		txn.Ops = append(txn.Ops, cache.Op{Kind: cache.OpGet, Cache: name})
	}
	outcomes, err := s.node.Do(ctx, levels[level], txn)
	switch {
	case errors.Is(err, cache.ErrConflict):
		return nil, false, nil
	case err != nil:
		return nil, false, translate(err)
	}
	results := make([]Result, len(tx.Ops))
	for i := range outcomes {
		if i < len(results) {
			results[i] = translateResult(&tx.Ops[i], &outcomes[i])
		}
	}
	return results, true, nil
}

// Clear is one transaction. The operation is for every database, there or not: a direct put to one that is not there yet may be on its way.
func (s *Shared) Clear(ctx context.Context) error {
	var txn cache.Txn
	for _, c := range s.caches {
		txn.Ops = append(txn.Ops, cache.Op{Kind: cache.OpClear, Cache: c.Name()})
	}
	_, err := s.node.Do(ctx, cache.Quorum, txn)
	return translate(err)
}

var levels = [...]cache.Level{LevelQuorum: cache.Quorum, LevelOnce: cache.Once, LevelLeader: cache.Leader, LevelDirect: cache.Direct}

// conditions of this package as the cache's.
var conditions = [...]cache.Condition{
	Always: cache.Always, IfAbsent: cache.IfAbsent, IfPresent: cache.IfPresent, IfEqual: cache.IfValue, IfNoTTL: cache.IfLasting,
	IfTTL: cache.IfExpires, IfLater: cache.IfLonger, IfEarlier: cache.IfShorter, IfEarlierTTL: cache.IfSooner,
}

var kinds = [...]cache.OpKind{
	OpGet: cache.OpGet, OpPut: cache.OpPut, OpDelete: cache.OpDelete, OpExpire: cache.OpTouch, OpIncr: cache.OpIncrement,
	OpAppend: cache.OpAppend, OpClear: cache.OpClear,
}

// over reports whether the op gives its key a time that has passed: then the key is removed.
func over(op *Op) bool {
	return (op.Kind == OpPut || op.Kind == OpExpire) && op.Expiry == ExpirySet && op.TTL <= 0
}

func translateOp(op *Op) cache.Op {
	out := cache.Op{
		Kind: kinds[op.Kind], Key: string(op.Key), Value: op.Value, If: conditions[op.If], Expect: op.Equal, Delta: op.Delta, WantOld: op.Old,
	}
	switch {
	case op.Kind == OpExpire && op.Expiry == ExpiryNone:
		out.TTL = cache.NoExpiry
	case op.Expiry == ExpiryKeep:
		out.TTL = cache.KeepTTL
	case over(op):
		out.Kind, out.Value = cache.OpDelete, nil
		switch op.If {
		case IfLater: // nothing has expired for longer
			out.Kind, out.If = cache.OpGet, cache.Always
		case IfEarlier:
			out.If = cache.IfPresent
		case IfEarlierTTL:
			out.If = cache.IfExpires
		}
	case op.Expiry == ExpirySet:
		out.TTL = max(op.TTL, time.Millisecond)
	}
	return out
}

func translateResult(op *Op, r *cache.Result) Result {
	out := Result{Done: r.Done, Found: r.Found, Old: r.Value, TTL: remainder(r.TTL), Number: r.Number}
	switch {
	case op.Kind == OpDelete, op.Kind == OpExpire:
		out.Done = r.Done && r.Found && !(over(op) && op.If == IfLater)
	}
	switch {
	case errors.Is(r.Err, cache.ErrNotNumber):
		out.Err = ErrNotInteger
	case errors.Is(r.Err, cache.ErrOverflow):
		out.Err = ErrOverflow
	case r.Err != nil:
		out.Err = translate(r.Err)
	}
	return out
}

// Publish sends a message through the log.
func (s *Shared) Publish(ctx context.Context, channel string, message []byte) error {
	return translate(s.node.Publish(ctx, channel, message, cache.Quorum))
}

// Subscribe passes messages on.
func (s *Shared) Subscribe(ctx context.Context, deliver func(channel string, message []byte), lost func()) error {
	sub := s.node.Subscribe(cache.Filter{Messages: true})
	defer sub.Close()
	for {
		event, err := sub.Next(ctx)
		switch {
		case err != nil:
			return err
		case event.Kind == cache.Missed:
			lost()
		case event.Kind == cache.Published:
			deliver(event.Key, event.Value)
		}
	}
}

// Settle waits for the direct puts, then goes through the log itself, behind what the leader has there.
func (s *Shared) Settle(ctx context.Context) error {
	if err := s.node.Settle(ctx); err != nil {
		return translate(err)
	}
	_, _, err := s.Apply(ctx, 0, LevelQuorum, Tx{})
	return err
}

// Replicas is what a quorum needs beside the leader; 0 without a quorum.
func (s *Shared) Replicas() int {
	health := s.node.Health()
	if health.Status == cache.Bad {
		return 0
	}
	return health.Quorum - 1
}

// Info describes the node.
func (s *Shared) Info() Info {
	health, stats := s.node.Health(), s.node.Stats()
	info := Info{
		Version: s.version, IsLeader: health.State == cache.Leads, Leader: health.Leader, Term: health.Term,
		Hits: stats.Hits, Misses: stats.Misses, Started: s.started,
	}
	for _, host := range health.Connected {
		if host != s.self && len(health.Hosts) > 1 {
			info.Others = append(info.Others, host)
		}
	}
	for _, one := range stats.Caches {
		info.Bytes += one.Bytes
		info.Evicted += one.Evictions
		info.Expired += one.Expired
	}
	return info
}

// translate finds this package's error for one of the cache's.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cache.ErrUnknown):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	case errors.Is(err, cache.ErrNoQuorum), errors.Is(err, cache.ErrClosed):
		return fmt.Errorf("%w: %w", ErrNoQuorum, err)
	case errors.Is(err, cache.ErrTooLarge):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, cache.ErrNotDone):
		return fmt.Errorf("%w: %w", ErrNotDone, err)
	}
	return err
}
