package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Node is this process's part of the cache. Make it with [New], let it take part with Run.
type Node struct {
	cfg    Config
	events *events
	health healthBoard

	caches  sync.Map                 // name to *Cache
	current atomic.Pointer[replica]  // nil while the node has no data that it may show
	engine  atomic.Pointer[proposer] // nil while the node does not run
	member  atomic.Pointer[member]   // nil while the node takes part in no cluster
	hosts   atomic.Pointer[[]string] // as configured, or set since

	relisted chan struct{} // one token when hosts was set
	started  atomic.Bool

	hits, misses         atomic.Uint64
	writes               [4]writeCounter
	elections            atomic.Uint64
	emptied              atomic.Uint64
	transfersIn          atomic.Uint64
	transfersOut         atomic.Uint64
	transferTime         atomic.Int64
	listenAddr           atomic.Pointer[net.Addr]
	logEntries, logBytes atomic.Int64
}

type writeCounter struct {
	done, failed, unknown atomic.Uint64
	total                 atomic.Int64
}

// proposer carries requests out, by itself or through the log.
type proposer interface {
	propose(ctx context.Context, level Level, r request) (response, error)
	confirm(ctx context.Context) error   // a read now is linearizable on this node
	ownWrites(ctx context.Context) error // everything acknowledged here is applied here
	settled() bool                       // so it is already: ownWrites need not be asked, nor a deadline be made for it
	decided(ctx context.Context) error   // the log has decided the direct puts that are there now
}

// replica is the data of a node between being emptied and being emptied again.
type replica struct {
	st    *state
	over  *overlays
	fresh *atomic.Int64 // may be read until then, see now
}

// New checks the configuration. It opens and starts nothing.
func New(cfg Config) (*Node, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Hosts = slices.Sorted(slices.Values(cfg.Hosts)) // in what order they were listed does not matter
	n := &Node{cfg: cfg, events: newEvents(), relisted: make(chan struct{}, 1)}
	n.hosts.Store(&cfg.Hosts)
	n.health.init(Health{State: Stopped, Hosts: cfg.Hosts, Quorum: len(cfg.Hosts)/2 + 1, Reason: "not started"}, cfg.Observer.Health)
	return n, nil
}

// SetHosts gives the node another list of hosts while it runs, as a restart with that list would, but without
// the restart. It is for programs that know their members: give all nodes the same list.
func (n *Node) SetHosts(hosts []string) error {
	if n.cfg.alone() {
		return errors.New("cache: a node by itself has no list of hosts to change")
	}
	cfg := n.cfg
	cfg.Hosts = slices.Sorted(slices.Values(hosts))
	if err := cfg.Validate(); err != nil {
		return err
	}
	if slices.Equal(*n.hosts.Load(), cfg.Hosts) {
		return nil
	}
	n.hosts.Store(&cfg.Hosts)
	select {
	case n.relisted <- struct{}{}:
	default:
	}
	return nil
}

// Cache returns the cache with this name. It is there as soon as something is written to it. Calls on one
// whose name is empty or too long fail with [ErrInvalid].
func (n *Node) Cache(name string) *Cache {
	if c, ok := n.caches.Load(name); ok {
		return c.(*Cache)
	}
	c := &Cache{node: n, name: name}
	if checkName(name) != nil {
		return c
	}
	got, _ := n.caches.LoadOrStore(name, c)
	return got.(*Cache)
}

// Run takes part until ctx ends, and returns when everything that it started has ended. It can be called once.
func (n *Node) Run(ctx context.Context) error {
	if !n.started.CompareAndSwap(false, true) {
		return errors.New("cache: Run was called before")
	}
	defer n.health.set(Health{State: Stopped, Hosts: *n.hosts.Load(), Quorum: n.quorum(), Reason: "stopped"})
	if n.cfg.alone() {
		return n.runAlone(ctx)
	}
	return n.runCluster(ctx)
}

func (n *Node) quorum() int { return len(*n.hosts.Load())/2 + 1 }

// view returns the data if it may be shown.
func (n *Node) view() *state {
	r := n.current.Load()
	if r == nil || now() > r.fresh.Load() {
		return nil
	}
	return r.st
}

// readable returns the data as fresh as asked for.
func (n *Node) readable(ctx context.Context, read Read) (*state, error) {
	p := n.engine.Load()
	if read != Local && p == nil {
		return nil, ErrClosed
	}
	if read == Consistent || read == OwnWrites && !(*p).settled() {
		ctx, cancel := context.WithTimeoutCause(ctx, n.cfg.OperationTimeout, errTimeout)
		defer cancel()
		wait := (*p).confirm
		if read == OwnWrites {
			wait = (*p).ownWrites
		}
		if err := wait(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotDone, err)
		}
	}
	if st := n.view(); st != nil {
		return st, nil
	}
	if n.engine.Load() == nil {
		return nil, ErrClosed
	}
	return nil, ErrNoQuorum
}

var errTimeout = errors.New("the operation took too long")

// visible returns what is left of an entry's time, 0 if it has expired. A consistent read goes by the log's
// time; the others add what has passed since, so that they see nothing longer than its TTL.
func (n *Node) visible(st *state, e *entry, read Read) time.Duration {
	if e.expires == 0 {
		return NoExpiry
	}
	clock := st.clock.Load()
	if read != Consistent {
		clock = max(clock, st.ahead.Load()+now()/int64(time.Millisecond))
	}
	if e.expires <= clock {
		return 0
	}
	return time.Duration(e.expires-clock) * time.Millisecond
}

// direct returns the direct put of a key that the log may not have yet, if a read is to see it.
func (n *Node) direct(read Read, cache, key string) (put *entry, base uint64) {
	if read == Consistent {
		return nil, 0
	}
	if r := n.current.Load(); r != nil && r.over != nil {
		return r.over.get(cache, key)
	}
	return nil, 0
}

// retire keeps the counts of data that go.
func (n *Node) retire(st *state) {
	for _, t := range *st.tables.Load() {
		hits, misses := t.counted()
		n.hits.Add(hits)
		n.misses.Add(misses)
	}
}

// one carries one operation out.
func (n *Node) one(ctx context.Context, level Level, op Op) (Result, error) {
	ops := [1]Op{op}
	resp, err := n.request(ctx, level, request{ops: ops[:]})
	if err != nil || len(resp.results) == 0 {
		return Result{}, err
	}
	return resp.results[0], nil
}

// Do carries several operations out with nothing in between, on every node. If a watched key has changed it
// returns [ErrConflict], and nothing was done. The results are those of the operations, in order; at levels
// below Quorum there are none, unless one of them is conditional.
func (n *Node) Do(ctx context.Context, level Level, txn Txn) ([]Result, error) {
	if len(txn.Ops) == 0 && len(txn.Watch) == 0 {
		return nil, nil
	}
	resp, err := n.request(ctx, level, request{watch: txn.Watch, ops: txn.Ops})
	if err == nil && resp.conflict {
		err = ErrConflict
	}
	return resp.results, err
}

// Publish sends a message to the subscribers on all nodes, in the log's order. Nothing is kept for those
// who subscribe later.
func (n *Node) Publish(ctx context.Context, channel string, content []byte, level Level) error {
	_, err := n.one(ctx, level, Op{Kind: OpPublish, Key: channel, Value: content})
	return err
}

// Subscribe returns the events that the filter wants, from now on, as this node applies them. Close it.
func (n *Node) Subscribe(f Filter) *Subscription { return n.events.add(f) }

// Settle returns when the direct puts that were answered on this node before are no longer its own alone: each is applied on a majority of
// the configured hosts, or gave way to another write of its key. It waits for OperationTimeout at most. [ErrUnknown] if one was lost on
// the way or may have been, [ErrNoQuorum] if this node has nothing.
func (n *Node) Settle(ctx context.Context) error {
	p := n.engine.Load()
	if p == nil {
		return ErrClosed
	}
	ctx, cancel := context.WithTimeoutCause(ctx, n.cfg.OperationTimeout, errTimeout)
	defer cancel()
	return (*p).decided(ctx)
}

func (n *Node) request(ctx context.Context, level Level, r request) (response, error) {
	effective, err := check(level, &r)
	if err != nil {
		return response{}, err
	}
	if err := n.fits(&r); err != nil {
		return response{}, err
	}
	p := n.engine.Load()
	if p == nil {
		return response{}, fmt.Errorf("%w: %w", ErrNotDone, ErrClosed)
	}
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > n.cfg.OperationTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, n.cfg.OperationTimeout, errTimeout)
		defer cancel()
	}
	begin := now()
	resp, err := (*p).propose(ctx, effective, r)
	n.wrote(effective, time.Duration(now()-begin), err)
	return resp, err
}

func (n *Node) wrote(level Level, took time.Duration, err error) {
	w := &n.writes[level]
	switch {
	case err == nil:
		w.done.Add(1)
		w.total.Add(int64(took))
	case errors.Is(err, ErrUnknown):
		w.unknown.Add(1)
	default:
		w.failed.Add(1)
	}
	if n.cfg.Observer.Write != nil {
		n.cfg.Observer.Write(level, took, err == nil)
	}
}

// check refuses what no node would carry out, and returns the level at which the request is carried out.
func check(level Level, r *request) (Level, error) {
	if level > Direct {
		return 0, fmt.Errorf("%w: %v; %w", ErrInvalid, level, ErrNotDone)
	}
	effective := level
	if len(r.watch) > 0 || len(r.ops) != 1 {
		effective = Quorum
	}
	for i := range r.watch {
		w := &r.watch[i]
		if err := checkName(w.Cache); err != nil {
			return 0, fmt.Errorf("%w; %w", err, ErrNotDone)
		}
		if len(w.Key) > MaxKey {
			return 0, fmt.Errorf("%w: a watched key of %d bytes, %d are possible; %w", ErrTooLarge, len(w.Key), MaxKey, ErrNotDone)
		}
	}
	for i := range r.ops {
		op := &r.ops[i]
		if op.Kind != OpPublish {
			if err := checkName(op.Cache); err != nil {
				return 0, fmt.Errorf("%w; %w", err, ErrNotDone)
			}
		}
		switch {
		case op.Kind < OpGet || op.Kind > OpPublish || op.If > IfSooner:
			return 0, fmt.Errorf("%w: unknown operation; %w", ErrInvalid, ErrNotDone)
		case len(op.Key) > MaxKey:
			return 0, fmt.Errorf("%w: a key of %d bytes, %d are possible; %w", ErrTooLarge, len(op.Key), MaxKey, ErrNotDone)
		case len(op.Value) > maxValue || len(op.Expect) > maxValue:
			return 0, fmt.Errorf("%w: a value of %d bytes, %d are possible; %w", ErrTooLarge, max(len(op.Value), len(op.Expect)), maxValue, ErrNotDone)
		case op.TTL < KeepTTL || op.TTL > 0 && op.TTL < time.Millisecond:
			return 0, fmt.Errorf("%w: a TTL of %v; it is a millisecond at least; %w", ErrInvalid, op.TTL, ErrNotDone)
		}
		if op.conditional() {
			effective = Quorum
		}
		if effective == Direct && op.Kind != OpPut {
			effective = Leader
		}
	}
	if size := r.size(); size > maxTxn {
		return 0, fmt.Errorf("%w: a transaction of %d bytes, %d are possible; %w", ErrTooLarge, size, maxTxn, ErrNotDone)
	}
	return effective, nil
}

// fits refuses what can be seen here to be larger than its cache may be, or one cache too many: at the levels that answer before the log is applied, nobody would
// hear of it afterwards.
func (n *Node) fits(r *request) error {
	st := n.view()
	if st == nil {
		return nil // which is told in another way
	}
	for i := range r.ops {
		op := &r.ops[i]
		if op.Kind != OpPut {
			continue
		}
		if tables := *st.tables.Load(); len(tables) >= maxCaches && tables[op.Cache] == nil {
			return fmt.Errorf("%w: there are %d caches, and %q would be one more; %w", ErrTooLarge, len(tables), op.Cache, ErrNotDone)
		}
		if size, most := entrySize(op.Key, op.Value), st.boundsOf(op.Cache).MaxBytes; size > most {
			return fmt.Errorf("%w: an entry of %d bytes, the cache may have %d; %w", ErrTooLarge, size, most, ErrNotDone)
		}
	}
	return nil
}

// Health returns what this node knows, at once (P10).
func (n *Node) Health() Health { return n.health.get() }

// HealthChanges returns the present health and a channel that is closed when it has changed.
func (n *Node) HealthChanges() (Health, <-chan struct{}) { return n.health.watch() }

// IsLeader reports whether this node leads the cache now. Work that should run once in the cluster may be
// done where it is true; in the second of a change it can be true on no node, and on two while the old one
// has not noticed yet.
func (n *Node) IsLeader() bool { return n.health.get().State == Leads }

// Addr returns the address that this node listens on, nil before it does.
func (n *Node) Addr() net.Addr {
	if a := n.listenAddr.Load(); a != nil {
		return *a
	}
	return nil
}

// Stats returns counters and sizes.
func (n *Node) Stats() Stats {
	s := Stats{
		Caches: map[string]CacheStats{}, Hits: n.hits.Load(), Misses: n.misses.Load(),
		Elections: n.elections.Load(), Emptied: n.emptied.Load(),
		TransfersIn: n.transfersIn.Load(), TransfersOut: n.transfersOut.Load(), LastTransfer: time.Duration(n.transferTime.Load()),
		LogEntries: n.logEntries.Load(), LogSize: n.logBytes.Load(),
	}
	for i := range n.writes {
		w := &n.writes[i]
		s.Writes[i] = WriteStats{Done: w.done.Load(), Failed: w.failed.Load(), Unknown: w.unknown.Load(), Total: time.Duration(w.total.Load())}
	}
	if r := n.current.Load(); r != nil {
		s.Applied = r.st.applied.Load()
		for name, t := range *r.st.tables.Load() {
			hits, misses := t.counted()
			s.Hits += hits
			s.Misses += misses
			s.Caches[name] = CacheStats{
				Entries: t.count.Load(), Bytes: t.size.Load(), Evictions: t.evictions.Load(), Expired: t.expired.Load(),
				Options: t.bounds(),
			}
		}
	}
	return s
}
