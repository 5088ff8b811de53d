package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// keyAuthority is the cluster authority, encrypted: it signs the identities that raft's traffic is bound to.
const keyAuthority = "core/authority"

// sealing is what the node knows of its seal. It is replaced as a whole, so that status can read it at any time.
type sealing struct {
	initialized bool         // the cluster has been, as far as this node knows
	config      *seal.Config // nil until it is known
	wrapped     []byte       // the root key as the seal wrapped it
	collector   *seal.Collector
	join        *joinTarget // the cluster is to be joined with the root key, once it is open; nil if this node has its entries
}

// readSeal looks into the storage for the seal's configuration.
func (s *Server) readSeal(ctx context.Context) (*sealing, error) {
	data, err := s.barrier.GetPlain(ctx, barrier.KeySealConfig)
	if errors.Is(err, physical.ErrNotFound) {
		return &sealing{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the seal's configuration: %w", err)
	}
	wrapped, err := s.barrier.GetPlain(ctx, barrier.KeyRootKey)
	if err != nil {
		return nil, fmt.Errorf("read the wrapped root key: %w", err)
	}
	return newSealing(data, wrapped)
}

func newSealing(config, wrapped []byte) (*sealing, error) {
	c, err := seal.ParseConfig(config)
	if err != nil {
		return nil, err
	}
	st := &sealing{initialized: true, config: &c, wrapped: wrapped}
	if c.Type == seal.TypeShamir {
		if st.collector, err = seal.NewCollector(c.Shares, c.Threshold); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// Init makes a new cluster of which this node is the first.
func (s *Server) Init(ctx context.Context, req api.InitRequest) (_ *api.InitResponse, err error) {
	s.interrupt()
	if err := s.ops.LockContext(ctx); err != nil {
		return nil, err
	}
	defer s.ops.Unlock()
	// Half an initialisation is of no use to anybody: from here on it goes on without its client.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settle)
	defer cancel()
	defer func() {
		if err != nil && !s.sealing.Load().initialized {
			if stop := s.stopRaft(); stop != nil {
				s.log.Error("raft did not stop cleanly", "error", stop)
			}
		}
	}()
	if s.sealing.Load().initialized {
		return nil, api.Errorf(http.StatusBadRequest, "the cluster is already initialised: unseal this node with the keys that were given out then")
	}
	if req.RecoveryShares > 0 {
		return nil, api.Errorf(http.StatusBadRequest, "recovery keys are not supported yet: leave recovery_shares out")
	}
	rootKey := make([]byte, barrier.KeySize)
	rand.Read(rootKey)
	defer clear(rootKey)
	protected, err := s.protect(ctx, rootKey, req)
	if err != nil {
		return nil, err
	}
	authority, err := cluster.NewClusterAuthority(time.Now())
	if err != nil {
		return nil, err
	}
	ring := cluster.NewRing(authority)
	ringData, err := ring.Marshal()
	if err != nil {
		return nil, err
	}
	info, err := newClusterInfo()
	if err != nil {
		return nil, err
	}
	token, tokenOps, err := newRootToken(rootKey)
	if err != nil {
		return nil, err
	}
	if err := s.bootstrap(ctx, ring); err != nil {
		return nil, err
	}
	err = s.barrier.Initialize(ctx, rootKey, slices.Concat(protected.ops, []physical.Op{physical.Put(keyAuthority, ringData), info}, tokenOps)...)
	if errors.Is(err, barrier.ErrInitialized) {
		return nil, api.Errorf(http.StatusBadRequest, "the cluster is already initialised: another node did it at the same time")
	}
	if err != nil {
		return nil, err
	}
	st, err := s.readSeal(ctx)
	if err != nil {
		return nil, err
	}
	s.sealing.Store(st)
	s.stopJoining()
	s.log.Info("cluster initialised", "seal", st.config.Type)
	if err := s.open(ctx, rootKey); err != nil {
		return nil, fmt.Errorf("initialised, but this node did not unseal: %w", err)
	}
	return &api.InitResponse{Keys: protected.shares, RootToken: token.Reveal()}, nil
}

// protected is the root key as the seal keeps it, and the shares that open it.
type protected struct {
	ops    []physical.Op
	shares [][]byte
}

// protect wraps the root key by the static key, or by a new key that is split into shares.
func (s *Server) protect(ctx context.Context, rootKey []byte, req api.InitRequest) (protected, error) {
	config := seal.Config{Type: seal.TypeStatic}
	wrapper := s.static
	var p protected
	if wrapper == nil {
		config = seal.Config{Type: seal.TypeShamir, Shares: req.Shares, Threshold: req.Threshold}
		key := seal.NewKey()
		defer key.Wipe()
		wrapper = seal.NewShamir(key)
		shares, err := seal.Split(key[:], req.Shares, req.Threshold)
		if err != nil {
			return p, api.Errorf(http.StatusBadRequest, "%v", err)
		}
		for _, share := range shares {
			p.shares = append(p.shares, share)
		}
	}
	wrapped, err := wrapper.Wrap(ctx, rootKey)
	if err != nil {
		return p, err
	}
	data, err := config.Marshal()
	if err != nil {
		return p, err
	}
	p.ops = []physical.Op{physical.Put(barrier.KeySealConfig, data), physical.Put(barrier.KeyRootKey, wrapped)}
	return p, nil
}

// Unseal takes one share. With the last one that is needed the node opens its storage, or joins the cluster.
func (s *Server) Unseal(ctx context.Context, share []byte) error {
	if err := s.ops.LockContext(ctx); err != nil {
		return err
	}
	defer s.ops.Unlock()
	if err := s.refreshSeal(ctx); err != nil {
		return err
	}
	st := s.sealing.Load()
	switch {
	case s.life.Load() != nil:
		return nil
	case !st.initialized:
		return api.Errorf(http.StatusBadRequest, "the cluster is not initialised, or this node has not reached it yet: initialise it with: locum operator init")
	case st.collector == nil:
		return api.Errorf(http.StatusBadRequest, "this seal opens by itself (%s): there are no shares to give; this node's log says what keeps it", st.config.Type)
	}
	key, complete, err := st.collector.Add(seal.Share(share))
	if err != nil {
		return api.Errorf(http.StatusBadRequest, "%v", err)
	}
	if !complete {
		return nil
	}
	defer key.Wipe()
	return s.openWith(ctx, st, seal.NewShamir(key))
}

// openWith unwraps the root key and goes on with it.
func (s *Server) openWith(ctx context.Context, st *sealing, by seal.Seal) error {
	rootKey, err := by.Unwrap(ctx, st.wrapped)
	if errors.Is(err, seal.ErrWrongKey) && by.Type() == seal.TypeShamir {
		return api.Errorf(http.StatusBadRequest, "the shares do not open the root key: at least one of them is not of this cluster; begin again")
	}
	if err != nil {
		return fmt.Errorf("open the root key with the %s seal: %w", by.Type(), err)
	}
	defer clear(rootKey)
	if st.join != nil {
		return s.joinWith(ctx, *st.join, rootKey)
	}
	return s.open(ctx, rootKey)
}

// open unseals the barrier, starts raft where it is the storage, and begins the node's unsealed life.
func (s *Server) open(ctx context.Context, rootKey []byte) error {
	if err := s.barrier.Unseal(ctx, rootKey); err != nil {
		return fmt.Errorf("unseal: %w", err)
	}
	if s.raft != nil && !s.raftRuns {
		entry, err := s.barrier.View(nil).Get(ctx, keyAuthority)
		if err == nil {
			var ring cluster.Ring
			if ring, err = cluster.ParseRing(entry.Value); err == nil {
				err = s.startRaft(ring)
			}
		}
		if err != nil {
			s.barrier.Seal()
			return fmt.Errorf("start raft: %w", err)
		}
	}
	s.readClusterInfo(ctx)
	if _, err := s.checkLockPlace(ctx); err != nil {
		s.barrier.Seal()
		return err
	}
	u, err := s.live()
	if err != nil {
		s.barrier.Seal()
		return err
	}
	s.log.Info("unsealed", "node", s.cfg.NodeName, "id", s.id)
	s.adoptAddress(u)
	return nil
}

// ResetUnseal forgets the shares given so far.
func (s *Server) ResetUnseal(context.Context) error {
	if c := s.sealing.Load().collector; c != nil {
		c.Reset()
	}
	return nil
}

// seal ends the unsealed life and forgets the keys. If this node is active it steps down first.
func (s *Server) seal(ctx context.Context) error {
	s.ops.Lock()
	defer s.ops.Unlock()
	u := s.life.Load()
	if u == nil {
		return nil
	}
	u.closing.Store(true)
	u.stepOut()
	s.serveHeld(u)
	u.end()
	if err := s.stopRaft(); err != nil {
		s.log.Error("raft did not stop cleanly", "error", err)
	}
	s.barrier.Seal()
	s.router.Refuse("this node is sealed")
	s.refuseServing("this node is sealed")
	st, err := s.readSeal(ctx)
	if err != nil {
		return err
	}
	s.sealing.Store(st)
	s.log.Info("sealed")
	return nil
}

// serveHeldFor bounds the wait of a node that seals for those that it has held meanwhile.
const serveHeldFor = 5 * time.Second

// serveHeld lets a node that stepped down to be sealed bring the requests that it holds to the next active node, if there
// is to be one.
func (s *Server) serveHeld(u *unsealed) {
	others := len(u.members.candidates()) > 0 || u.leader.Load() != nil
	ctx, cancel := context.WithTimeout(s.lifetime, serveHeldFor)
	defer cancel()
	for others && !(s.connected() && s.held() == 0) && pauseFor(ctx, 5*time.Millisecond) {
	}
}

// held counts the requests and byte streams that wait here for an active node, the applications' included.
func (s *Server) held() int {
	held := s.router.Held()
	for _, a := range s.serving {
		held += a.router.Held()
	}
	return held
}

// newTokens gives the token store of a term.
func (s *Server) newTokens(view *barrier.View) (*auth.Store, error) {
	key, err := s.barrier.DeriveKey(auth.Purpose)
	if err != nil {
		return nil, err
	}
	return auth.New(view, key, auth.Config{Logger: s.log.With("part", "auth")})
}

// newRootToken makes the token that init hands out.
func newRootToken(rootKey []byte) (auth.Secret, []physical.Op, error) {
	key, err := barrier.Derive(rootKey, auth.Purpose)
	if err != nil {
		return "", nil, err
	}
	return auth.NewRootToken(key, time.Now())
}
