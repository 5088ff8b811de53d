package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/election"
	"github.com/locum-ha/locum/kv"
	"github.com/locum-ha/locum/lock"
	"github.com/locum-ha/locum/physical"
)

// keyLeader is the advertisement: one entry, replaced at every activation and withdrawn by a step-down.
const keyLeader = "core/leader"

// leading is what exists on this node during one term, from activation to deactivation.
type leading struct {
	node    *unsealed
	term    *election.Leadership
	since   time.Time
	handler http.Handler // what the active node runs
	tokens  *auth.Store
	unport  func() // closes the cluster listener to forwarding

	unportApps func() // … and to the applications' requests

	history []api.Leadership // as this leadership began; not changed after

	ordering sync.Mutex // one order at a time
	orders   *orders    // in force

	minting  atomic.Bool // tokens can be made
	draining atomic.Bool // stepping down: others' requests are held
	hasApps  bool        // the activation of the applications was begun
	appsDone bool        // they were stopped as planned

	root      rootAttempt
	rekey     rekeyAttempt
	endUpkeep context.CancelFunc
	upkeep    sync.WaitGroup // what goes on beside requests

	upkeepUntil context.Context // ends before deactivation waits for upkeep

	locks    atomic.Pointer[lock.Manager] // nil until the term has begun
	sequence atomic.Uint64                // of the program's writes
	endWork  context.CancelCauseFunc      // nil until the program's work has begun
	working  sync.WaitGroup
}

// activate makes this node the active one: the steps of docs/architecture.md from "load the keyring" on. Each step is undone by
// deactivate, which the election calls whether or not this succeeds.
func (u *unsealed) activate(ctx context.Context, term *election.Leadership) error {
	l := &leading{node: u, term: term, since: time.Now()}
	u.role.Lock()
	u.leading.Store(l)
	u.role.Unlock()
	if u.reads != nil {
		u.reads.begin()
	}
	if err := u.barrier.ReloadKeyring(ctx); err != nil {
		return fmt.Errorf("load the keyring: %w", err)
	}
	if err := l.takeOrders(ctx); err != nil {
		return fmt.Errorf("load what operators have ordered: %w", err)
	}
	identity, err := cluster.NewActiveIdentity(term.Term, u.cfg.NodeName, u.id, l.since)
	if err != nil {
		return fmt.Errorf("make the keys of term %d: %w", term.Term, err)
	}
	if err := l.open(identity); err != nil {
		return fmt.Errorf("open the cluster listener: %w", err)
	}
	if err := l.noteLockPlace(ctx); err != nil {
		return fmt.Errorf("note where the HA lock is kept: %w", err)
	}
	if err := l.advertise(ctx, identity); err != nil {
		return fmt.Errorf("write the advertisement: %w", err)
	}
	if err := l.serve(); err != nil {
		return err
	}
	u.router.Lead(term.Term, term.Lease, l.handler)
	l.hasApps = true
	if err := u.apps.activate(ctx, term.Term); err != nil {
		l.noteFailure(err)
		return err
	}
	if err := l.leadServing(); err != nil {
		return err
	}
	u.lastActive(true)
	l.work()
	return nil
}

// open lets standbys in, with the keys of this term.
func (l *leading) open(identity *cluster.ActiveIdentity) error {
	u := l.node
	if u.port == nil {
		return nil // a node alone: there are no standbys
	}
	serverTLS := identity.ServerTLS()
	remove, err := u.port.Handle(cluster.Protocol{
		ALPN: cluster.ALPNForward,
		TLS:  func() *tls.Config { return serverTLS },
		Serve: func(ctx context.Context, conn *tls.Conn) {
			err := u.router.ServeConn(ctx, conn, cluster.PeerID(conn), cluster.PeerName(conn))
			if err != nil && ctx.Err() == nil {
				u.log.Debug("standby's connection ended", "node", cluster.PeerName(conn), "error", err)
			}
		},
	})
	l.unport = remove
	if err != nil {
		return err
	}
	return l.openServing(serverTLS)
}

// advertise tells the standbys where this node is, then notes the leadership in the history. The order matters on raft: a
// standby's copy applies a commit once it hears of the next one, so the second lets the first through at once.
func (l *leading) advertise(ctx context.Context, identity *cluster.ActiveIdentity) error {
	u := l.node
	advertisement := identity.Advertise(u.apiAddr, u.clusterAddr, l.since)
	advertisement.Listener = u.listenerAddr()
	advertisement.Applications = u.appAddresses()
	ad, err := advertisement.Marshal()
	if err != nil {
		return err
	}
	view := u.barrier.View(&l.term.Fence)
	if l.history, err = readHistory(ctx, view); err != nil {
		return err
	}
	l.history = began(l.history, api.Leadership{Term: l.term.Term, NodeID: u.id, Node: u.cfg.NodeName, From: l.since})
	entry, err := writeHistory(l.history)
	if err != nil {
		return err
	}
	if u.raft == nil {
		return view.Commit(ctx, physical.Put(keyLeader, ad), entry)
	}
	if err := view.Commit(ctx, physical.Put(keyLeader, ad)); err != nil {
		return err
	}
	return view.Commit(ctx, entry)
}

// serve builds what the active node runs: entries and tokens, fenced by the term, behind the API.
func (l *leading) serve() error {
	u := l.node
	view := u.barrier.View(&l.term.Fence)
	entries := kv.New(view)
	tokens, err := u.newTokens(view)
	if err != nil {
		return err
	}
	l.tokens = tokens
	upkeep, cancel := context.WithCancel(l.term.Lease.Context())
	l.endUpkeep, l.upkeepUntil = cancel, upkeep
	l.upkeep.Go(func() {
		if err := tokens.Run(upkeep); err != nil {
			u.log.Error("removing expired tokens ended", "error", err)
		}
	})
	l.upkeep.Go(func() { l.forgetSlots(upkeep, view) })
	if u.raft != nil {
		l.upkeep.Go(func() { l.rotateAuthority(upkeep, view) })
	}
	service := &service{leading: l}
	var members api.Raft
	if u.raft != nil {
		members = &raftService{leading: l}
	}
	locks := lock.New(view, lock.Config{Logger: u.log.With("part", "lock"), Observer: u.metrics.Locks()})
	l.upkeep.Go(func() {
		if err := locks.Run(upkeep); err != nil {
			u.log.Error("removing unused locks ended", "error", err)
		}
	})
	l.locks.Store(locks)
	l.handler = l.inviting(l.tellingWhetherItServes(l.mintingForOthers(l.dispatch(api.Active(service, entries, tokens, members, u.apiConfig())))))
	l.minting.Store(true)
	if u.guardian != nil {
		l.upkeep.Go(func() { u.keepPlan(upkeep) })
	}
	return nil
}

// whyEnding says in the history why a leadership ends as planned.
func (u *unsealed) whyEnding() string {
	switch {
	case u.stopping.Load():
		return "shut down"
	case u.closing.Load():
		return "sealed"
	case u.orders.Load().inMaintenance(u.cfg.NodeName):
		return "in maintenance"
	}
	return "stepped down"
}

var errDrainLimit = errors.New("drain limit reached")

// drain is the planned way out, while the lock is still renewed: the standbys hold from now on, new requests wait
// here too, what is in flight ends, the advertisement is withdrawn.
func (u *unsealed) drain(ctx context.Context, term *election.Leadership) error {
	l := u.leading.Load()
	if l == nil {
		return nil
	}
	if locks := l.locks.Load(); locks != nil {
		locks.Drain()
	}
	l.draining.Store(true)
	limited, cancel := context.WithTimeoutCause(ctx, u.cfg.HA.DrainTimeout, errDrainLimit) // the applications' time to stop follows
	defer cancel()
	err := u.drainServing(limited)
	if derr := u.router.Drain(limited); derr != nil {
		err = errors.Join(err, fmt.Errorf("requests in flight: %w", derr))
	}
	err = errors.Join(err, l.stopWork(limited, election.ErrSteppedDown))
	if l.hasApps {
		err = errors.Join(err, u.apps.stop(ctx))
		l.appsDone = term.Lease.Valid()
	}
	entry, herr := writeHistory(ended(l.history, term.Term, time.Now(), u.whyEnding()))
	if herr != nil {
		return errors.Join(err, herr)
	}
	// The drain limit may be over; the advertisement goes as long as the lease lasts.
	werr := u.barrier.View(&term.Fence).Commit(term.Lease.Context(), physical.Delete(keyLeader), entry)
	if werr != nil {
		werr = fmt.Errorf("withdraw the advertisement: %w", werr)
	}
	return errors.Join(err, werr)
}

// deactivate undoes everything that activate did. It writes nothing.
func (u *unsealed) deactivate(term *election.Leadership, cause error) {
	l := u.leading.Load()
	if l == nil {
		return
	}
	u.router.Abandon()
	if u.reads != nil {
		u.reads.end()
	}
	u.abandonServing()
	if l.hasApps && !l.appsDone {
		u.apps.kill(cause) // P2: ended, and seen to be ended, before the lock is released
	}
	u.role.Lock()
	defer u.role.Unlock()
	if l.unport != nil {
		l.unport()
	}
	if l.unportApps != nil {
		l.unportApps()
	}
	l.awaitWork(cause)
	if l.tokens != nil {
		l.endUpkeep()
		l.upkeep.Wait()
		l.tokens.Reset()
		l.root.mu.Lock()
		l.root.clear()
		l.root.mu.Unlock()
		l.rekey.mu.Lock()
		l.rekey.clear()
		l.rekey.mu.Unlock()
	}
	u.leading.Store(nil)
	u.kick()
}
