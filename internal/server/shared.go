package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// What is different where the nodes share a data store that is not their own: they find each other in it. One is
// initialised, the others see that; which node is active they learn from the lock's record and the advertisement.

// takeover is what a node may need to become active once the lock is free, so that a request that is held outlasts it.
const takeover = 10 * time.Second

// StoresFit reports what makes the opened stores, or the times that are set, unfit for each other.
func StoresFit(cfg *config.Config, opened physical.Stores) error {
	if opened.Lock == nil || cfg.Storage.Type == "raft" {
		return nil
	}
	name, caps := cfg.HAStorage.Type, opened.Lock.Caps()
	if name == "" {
		name = cfg.Storage.Type
	}
	if !caps.HA {
		return fmt.Errorf("%q cannot hold the HA lock: name a store that can in ha_storage", name)
	}
	ttl := cfg.HA.LockTTL
	if ttl == 0 {
		ttl = caps.DefaultTTL
	}
	if ttl < caps.MinTTL {
		return fmt.Errorf("ha.lock_ttl is %s and %q can do no less than %s: write lock_ttl = %q or more, or remove the line (then it is %s)",
			ttl, name, caps.MinTTL, caps.MinTTL, caps.DefaultTTL)
	}
	// A lock that its holder left runs out within twice its TTL at worst: some stores count it twice.
	if need := 2*ttl + takeover; cfg.Forwarding.HoldTimeout < need {
		return fmt.Errorf("forwarding.hold_timeout is %s, less than twice the lock's TTL (%s) + %s: requests would fail in a failover; write hold_timeout = %q or more, or a shorter lock_ttl",
			cfg.Forwarding.HoldTimeout, ttl, takeover, need)
	}
	return nil
}

// closeStores closes what was opened in vain.
func closeStores(opened physical.Stores) error {
	err := opened.Storage.Close()
	if opened.Lock != nil && any(opened.Lock) != any(opened.Storage) {
		err = errors.Join(err, opened.Lock.Close())
	}
	return err
}

const (
	awaitMin = 100 * time.Millisecond
	awaitMax = 2 * time.Second
)

// awaitOthers brings a sealed node, in the background, to where it can get by itself: it waits for the cluster to be initialised
// by this node or another, and opens a static seal, again and again while the store does not answer. The caller holds ops.
func (s *Server) awaitOthers(st *sealing) {
	if st.collector != nil {
		s.log.Info("sealed", "next", "locum operator unseal")
		return
	}
	if !st.initialized {
		s.log.Info("not initialised", "next", "locum operator init, on one of the nodes")
	}
	s.stopJoining()
	ctx, cancel := context.WithCancel(s.lifetime)
	s.cancelJoin.Store(&cancel)
	s.wg.Go(func() {
		told := ""
		for pause := awaitMin; ctx.Err() == nil; pause = min(2*pause, awaitMax) {
			over, err := s.awaitOnce(ctx)
			if over || ctx.Err() != nil {
				return
			}
			if err == nil {
				pause = awaitMin // merely not initialised yet
			} else if err.Error() != told {
				told = err.Error()
				s.log.Error("this node stays sealed, and tries again", "error", err)
			}
			if !pauseFor(ctx, pause) {
				return
			}
		}
	})
}

// awaitOnce reports whether there is nothing left to wait for.
func (s *Server) awaitOnce(ctx context.Context) (over bool, err error) {
	if !s.sealing.Load().initialized {
		// Without the turn, so that an init on this node need not wait for the store's answer to this.
		if st, err := s.readSeal(ctx); err != nil || !st.initialized {
			return false, err
		}
	}
	attempt, done, err := s.begun(ctx)
	if err == nil {
		defer done()
		over, err = s.openAlone(attempt)
	}
	if err != nil && attempt.Err() != nil {
		return false, nil
	}
	return over, err
}

// openAlone opens a static seal as soon as the cluster is initialised. The caller holds ops.
func (s *Server) openAlone(ctx context.Context) (over bool, err error) {
	if s.life.Load() != nil || ctx.Err() != nil {
		return s.life.Load() != nil, nil
	}
	if err := s.refreshSeal(ctx); err != nil {
		return false, err
	}
	st := s.sealing.Load()
	switch {
	case !st.initialized:
		return false, nil
	case st.collector != nil:
		s.log.Info("the cluster is initialised; this node is sealed", "next", "locum operator unseal")
		return true, nil
	case s.static == nil:
		s.log.Error("the storage has a static seal and the configuration has none: give it the seal \"static\" block it was initialised with")
		return true, nil
	}
	err = s.openWith(ctx, st, s.static)
	if errors.Is(err, seal.ErrWrongKey) || errors.Is(err, errLockPlace) {
		s.log.Error("this node stays sealed", "error", err)
		return true, nil
	}
	return err == nil, err
}

// refreshSeal reads the seal's configuration again where other nodes can have written it. Shares that were given are kept
// unless it has changed. The caller holds ops.
func (s *Server) refreshSeal(ctx context.Context) error {
	if s.raft != nil || !s.ha || s.life.Load() != nil {
		return nil
	}
	st, err := s.readSeal(ctx)
	if err != nil {
		return err
	}
	now := s.sealing.Load()
	if now.initialized != st.initialized || string(now.wrapped) != string(st.wrapped) {
		s.sealing.Store(st)
	}
	return nil
}

// LookAgain sees whether another node has initialised the cluster meanwhile, as api's looker.
func (s *Server) LookAgain(ctx context.Context) {
	if err := s.ops.LockContext(ctx); err != nil {
		return
	}
	defer s.ops.Unlock()
	if err := s.refreshSeal(ctx); err != nil {
		s.log.Warn("seal configuration not read", "error", err)
	}
}

// keyLockPlace says which store keeps the HA lock, and where in it. A node that would look for the lock elsewhere could become
// active beside another: the fence would stop its writes, but not the application.
const keyLockPlace = "core/lock-place"

type lockPlace struct {
	Format int    `json:"format"`
	Place  string `json:"place"`
}

const lockPlaceFormat = 1

// OwnLife lists the entries that belong to where and when a cluster runs, and are not copied into another data store: the
// advertisement of the active node, and where the HA lock is kept.
func OwnLife() []string { return []string{keyLeader, keyLockPlace} }

var errLockPlace = errors.New("the HA lock is kept elsewhere")

// checkLockPlace compares the configuration with what the cluster goes by, and reports whether that is noted yet.
func (s *Server) checkLockPlace(ctx context.Context) (noted bool, err error) {
	if s.raft != nil || !s.ha {
		return false, nil
	}
	entry, err := s.barrier.View(nil).Get(ctx, keyLockPlace)
	if errors.Is(err, physical.ErrNotFound) {
		return false, nil // the first active node notes it
	}
	if err != nil {
		return false, fmt.Errorf("read where the HA lock is kept: %w", err)
	}
	var p lockPlace
	if err := json.Unmarshal(entry.Value, &p); err != nil {
		return false, fmt.Errorf("read where the HA lock is kept: %w", err)
	}
	if p.Format > lockPlaceFormat {
		return false, fmt.Errorf("where the HA lock is kept was written by a newer version (format %d); this one knows %d: upgrade this node", p.Format, lockPlaceFormat)
	}
	if here := s.cfg.LockPlace(); p.Place != here {
		return false, fmt.Errorf("%w: this cluster keeps it in %q, and this node is configured for %q. Configure all nodes alike; to move the lock, stop all nodes and run: locum operator migrate -lock",
			errLockPlace, p.Place, here)
	}
	return true, nil
}

// noteLockPlace stores, once for the life of a lineage, where the lock is kept. Every leadership begins with a look at that: a node that
// was not ended when operators moved the lock could take the old one again.
func (l *leading) noteLockPlace(ctx context.Context) error {
	n := l.node
	if n.raft != nil || !n.ha {
		return nil
	}
	if noted, err := n.checkLockPlace(ctx); err != nil || noted {
		return err
	}
	data, err := json.Marshal(lockPlace{Format: lockPlaceFormat, Place: n.cfg.LockPlace()})
	if err != nil {
		return err
	}
	return n.barrier.View(&l.term.Fence).Commit(ctx, physical.Put(keyLockPlace, data))
}
