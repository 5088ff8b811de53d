// Package server joins the packages into a node: the daemon that "locum server" runs.
//
// A node's life, in the order of the files:
//
//	server.go      New and Run: open the storage, listen, unseal or join, serve, end
//	listeners.go   the API listeners, and what every request passes first
//	sealing.go     init, unseal, seal
//	joining.go     into a cluster on the embedded store, and back at a new address
//	unsealed.go    the time between unsealing and sealing: the election, and
//	following.go   …whom to forward to while standby
//	leading.go     …what exists while active
//	service.go     what the active node can be asked to do
//	stepdown.go    the waiting side of a step-down
//	orders.go      pause of automatic failover, maintenance of a node
//	status.go      what every node answers from memory (P10)
//	program.go     the Go program that a node is built into, by package locum; locking.go: its way to the named locks
//
// Two locks matter. Server.ops is held by init, unseal, seal and join, one at a time, over I/O; nothing on a request's way
// takes it. unsealed.role makes "this node becomes or ceases to be active" and "this node follows another" exclude each
// other. Everything that a request or a status path reads is atomic.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/join"
	"github.com/locum-ha/locum/internal/listener"
	"github.com/locum-ha/locum/internal/metrics"
	"github.com/locum-ha/locum/internal/registration"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// Options are what a node needs besides its configuration.
type Options struct {
	Version   string
	BuildDate string       // RFC 3339
	Out       io.Writer    // gets the start-up table; default: nowhere
	Logger    *slog.Logger // default: nowhere
	Ready     func()       // called once the node listens; may be nil

	// Open opens the data stores that the configuration names; required. Run calls it once, and closes what it gets.
	Open Opener

	// Guardian starts a guardian, for a program whose main calls supervise.Main; nil: there is none, and no application with a
	// command.
	Guardian Guardians

	// OwnProcess says that this process runs this node alone, so that what is global in it is the node's: the raft
	// library's own metrics, and how many processors it uses.
	OwnProcess bool

	// Program is the Go program that this node is built into, if it is not the daemon.
	Program Program
}

// Opener opens a node's data stores. On an error it has closed what it had opened.
type Opener func(ctx context.Context, cfg *config.Config, host physical.Host) (physical.Stores, error)

// Server is one Locum node.
type Server struct {
	cfg  *config.Config
	opts Options
	log  *slog.Logger

	id              string // the node's identity: with raft a UUID made with the data directory, else its name
	apiAddr         string // URL
	clusterAddr     string // URL
	clusterHostPort string
	ha              bool      // the storage has an HA lock
	unshared        bool      // the storage could hold the lock, and is this process's alone
	static          seal.Seal // nil unless the seal is static
	targets         []joinTarget

	metrics             *metrics.Metrics
	storage             physical.Backend
	lock                physical.HABackend
	entryCaps, lockCaps physical.Caps      // the lock's are zero without high availability
	apart               physical.HABackend // the lock's store where it is another one than the storage; else nil
	raft                embedded           // nil unless the storage runs in the nodes themselves
	gathers             bool               // the storage puts commits that wait into one transaction by itself
	reads               *entryCache        // between storage and barrier, where the storage is a round trip away; else nil
	barrier             *barrier.Barrier
	cache               *cachePart    // nil unless the configuration has a cache block
	caching             *cacheLayer   // nil unless the cache's hosts are the cluster's members
	port                *cluster.Port // nil where there are no other nodes
	router              *forward.Router
	routing             atomic.Pointer[forward.Router] // the same, for whoever comes before it is made or after it has ended
	door                join.Door

	inviteDoor   join.Door
	registration *registration.Registration // nil where there is none

	guardian *guardianship      // nil where there is none
	local    *listener.Listener // for this node's applications; nil without any
	exit     atomic.Int64       // the first application's last exit code, as a shell has it

	listeners []*listener.Listener
	serving   []*serving      // the applications' ways of requests
	lifetime  context.Context // of everything that is not on a request's way; ends last
	wg        sync.WaitGroup  // goroutines under lifetime
	stopping  atomic.Bool     // asked to end: not ready any more

	orders  atomic.Pointer[orders] // of the operators, as far as this node knows
	wasLast atomic.Bool            // this node was active last

	leaderless atomic.Int64 // Unix nanoseconds since when no active node is known; 0 while one is

	ops        turn   // init, unseal, seal, join: one at a time
	raftRuns   bool   // guarded by ops
	deaf       func() // guarded by ops: ends hearing of other nodes' deaths; nil while this one does not
	cancelJoin atomic.Pointer[context.CancelFunc]
	attempt    atomic.Pointer[context.CancelFunc] // ends the attempt under way, of joining or opening in the background

	sealing   atomic.Pointer[sealing]
	clusterID atomic.Pointer[string] // nil until this node was unsealed

	authorityAge atomic.Int64 // a time.Duration: see the constant

	identity  atomic.Pointer[cluster.PeerIdentity] // what raft's traffic is bound to; nil until raft ran
	authority atomic.Pointer[string]               // marks the authorities that identity has taken over
	life      atomic.Pointer[unsealed]             // nil while sealed
}

// New checks what can be checked without I/O. The configuration has been validated when it was loaded.
func New(cfg *config.Config, opts Options) (*Server, error) {
	if opts.Open == nil {
		return nil, errors.New("Options.Open is missing: nothing would open the storage")
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Out == nil {
		opts.Out = io.Discard
	}
	s := &Server{ops: make(turn, 1), cfg: cfg, opts: opts, log: opts.Logger, apiAddr: cfg.APIAddr, clusterAddr: cfg.ClusterAddr}
	s.sealing.Store(&sealing{})
	s.authorityAge.Store(int64(authorityAge))
	s.metrics = metrics.New(opts.Version)
	s.metrics.Watch(s.state)
	if opts.OwnProcess {
		if err := s.metrics.CaptureRaft(); err != nil {
			return nil, err
		}
	}
	if cfg.ClusterAddr != "" {
		hostPort, err := cluster.HostPort(cfg.ClusterAddr)
		if err != nil {
			return nil, err
		}
		s.clusterHostPort = hostPort
	}
	return s, nil
}

// Run is the node, until ctx ends or something breaks; it returns when everything that it began has ended. When ctx ends
// the node steps down, serves what is in flight and what waits, and closes. The end of skip cuts that short.
func (s *Server) Run(ctx, skip context.Context) error {
	lifetime, end := context.WithCancel(context.Background())
	s.lifetime = lifetime
	err := s.prepare()
	if err != nil {
		end()
		if s.guardian != nil {
			err = errors.Join(err, s.guardian.guard.Close())
		}
		return errors.Join(err, s.closeStorage())
	}
	failed := make(chan error, len(s.listeners)+3+s.servingParts())
	s.serve(failed)
	s.table()
	s.begin()
	if s.opts.Ready != nil {
		s.opts.Ready()
	}
	select {
	case err = <-failed:
		s.log.Error("ending: a part of the node failed", "error", err)
	case <-s.storeFailed():
		err = fmt.Errorf("storage %q: %w", s.cfg.Storage.Type, s.raft.Failure())
		s.log.Error("ending: the disk did not take what had to be stored; start this node again when that is mended", "error", err)
	case <-ctx.Done():
		s.log.Info("ending", "cause", context.Cause(ctx))
	}
	s.end(skip)
	end()
	s.wg.Wait()
	return errors.Join(err, s.closeStorage())
}

// prepare opens everything that can fail at start. The guardian, a process of its own, starts meanwhile.
func (s *Server) prepare() error {
	guardian := s.callGuardian(s.lifetime)
	if err := errors.Join(s.build(), guardian()); err != nil {
		return err
	}
	if err := s.openLocal(); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	if err := s.openServing(); err != nil {
		s.closeListeners(s.lifetime)
		return err
	}
	return nil
}

// build opens the storage and makes what stands on it.
func (s *Server) build() error {
	var err error
	if s.static, err = staticSeal(s.cfg.Seal, s.opts.Program.Key); err != nil {
		return err
	}
	if s.targets, err = configuredTargets(s.cfg); err != nil {
		return err
	}
	if s.registration, err = s.newRegistration(); err != nil {
		return err
	}
	if err := s.openStorage(); err != nil {
		return fmt.Errorf("storage %q: %w", s.cfg.Storage.Type, err)
	}
	store := s.storage
	if s.ha && s.raft == nil {
		if !s.gathers {
			store = newMerger(store)
		}
		s.reads = newEntryCache(store)
		store = s.reads
	}
	s.barrier = barrier.New(store, barrier.Options{Observer: s.metrics.Barrier()})
	if s.ha {
		s.port, err = cluster.NewPort(cluster.Config{
			Address: s.cfg.ClusterListen(), Logger: s.log.With("part", "cluster"), Observer: s.metrics.Cluster(),
		})
		if err != nil {
			return err
		}
	}
	if s.cfg.Cache.On {
		env, err := cacheEnvironment(s.cfg.Cache, s.cfg.NodeName, s.raft != nil)
		if err == nil {
			if s.raft != nil && len(s.cfg.Cache.Hosts) == 0 {
				s.caching = newCacheLayer(s.port, s.clusterHostPort, s.raft.Peers)
			}
			s.cache, err = newCachePart(env, s.cfg.Cache, s.caching, s.opts.Version, s.log, s.metrics)
		}
		if err != nil {
			return err
		}
	}
	if s.router, err = s.newRouter(); err != nil {
		return err
	}
	s.routing.Store(s.router)
	st, err := s.readSeal(s.lifetime)
	if err != nil {
		return err
	}
	s.sealing.Store(st)
	return nil
}

// staticSeal reads the key of a static seal, unless the program has given it; nil for another seal.
func staticSeal(c config.Seal, given *seal.Key) (seal.Seal, error) {
	if given != nil {
		return seal.NewStatic(*given), nil
	}
	if c.Type != seal.TypeStatic {
		return nil, nil
	}
	key, err := seal.ReadKeyFile(c.Static.KeyFile)
	if c.Static.KeyEnv != "" {
		key, err = seal.ReadKeyEnv(c.Static.KeyEnv)
	}
	if err != nil {
		return nil, fmt.Errorf("seal \"static\": %w", err)
	}
	return seal.NewStatic(key), nil
}

// serve starts what runs for as long as the node does.
func (s *Server) serve(failed chan<- error) {
	run := func(what string, f func(context.Context) error) {
		s.wg.Go(func() {
			if err := f(s.lifetime); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	run("router", s.router.Run)
	s.runServing(failed)
	if s.port != nil {
		run("cluster port", s.port.Run)
	}
	if s.cache != nil {
		run("cache", s.cache.run)
	}
	if s.guardian != nil {
		run("guardian", s.guardian.run)
	}
	if s.registration != nil {
		s.wg.Go(func() { s.register(s.lifetime, s.registration) })
	}
	all := s.listeners
	if s.local != nil {
		all = append([]*listener.Listener{s.local}, all...)
	}
	for _, l := range all {
		s.wg.Go(func() {
			if err := l.Serve(); err != nil {
				failed <- fmt.Errorf("listener %s: %w", l.Addr(), err)
			}
		})
	}
}

// storeFailed is closed when the embedded store cannot go on. A node that went on without it would neither lead nor learn
// who does.
func (s *Server) storeFailed() <-chan struct{} {
	if s.raft == nil {
		return nil
	}
	return s.raft.Failed()
}

// begin brings the node to where it can get by itself: unsealed with a static seal, joining where it was told to.
func (s *Server) begin() {
	s.ops.Lock()
	defer s.ops.Unlock()
	st := s.sealing.Load()
	switch {
	case s.life.Load() != nil: // the API is there already: somebody was faster
	case s.raft == nil && s.ha && !st.initialized && s.opts.Program.Found:
		s.wg.Go(func() { s.found(s.lifetime) })
	case s.raft == nil && s.ha:
		s.awaitOthers(st)
	case !st.initialized && s.raft != nil && len(s.targets) > 0:
		s.startJoining(s.targets)
	case !st.initialized && s.opts.Program.Found:
		s.wg.Go(func() { s.found(s.lifetime) })
	case !st.initialized:
		s.log.Info("not initialised", "next", "locum operator init")
	case st.collector != nil:
		s.log.Info("sealed", "next", "locum operator unseal")
	case s.static == nil:
		s.log.Error("the storage has a static seal and the configuration has none: give it the seal \"static\" block it was initialised with")
	default:
		if err := s.openWith(s.lifetime, st, s.static); err != nil {
			s.log.Error("this node stays sealed", "error", err)
		}
	}
}

// end is the way out: not ready any more, step down, forward for the shutdown delay, finish what is in flight, close.
func (s *Server) end(skip context.Context) {
	s.stopping.Store(true)
	s.stopJoining()
	over := make(chan struct{})
	s.wg.Go(func() {
		defer close(over)
		if u := s.life.Load(); u != nil {
			u.apps.note()
			u.stepOut()
		}
	})
	select {
	case <-over:
	case <-skip.Done():
		if u := s.life.Load(); u != nil {
			u.election.SkipDrain()
		}
		<-over
	}
	s.standAside()
	if s.cfg.HA.ShutdownDelay > 0 {
		pauseFor(skip, s.cfg.HA.ShutdownDelay)
	}
	s.closeProgram(skip)
	s.closeListeners(skip)
	s.ops.Lock()
	defer s.ops.Unlock()
	if u := s.life.Load(); u != nil {
		u.end()
	}
	s.closeLocal()
	if err := s.stopRaft(); err != nil {
		s.log.Error("raft did not stop cleanly", "error", err)
	}
	s.barrier.Seal()
}

func (s *Server) closeStorage() error {
	var err error
	if s.apart != nil {
		if e := s.apart.Close(); e != nil {
			err = fmt.Errorf("close ha_storage: %w", e)
		}
	}
	if s.storage != nil {
		closing := s.storage
		if s.reads != nil {
			closing = s.reads
		}
		if e := closing.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("close storage: %w", e))
		}
	}
	return err
}

// settleListeners bounds how long open requests may take after the node has left the election.
const settleListeners = 15 * time.Second

// standAside keeps a node that has left the election from being chosen by raft, whose traffic goes on until the node
// has forwarded its last request: it asks for votes only if nobody else does, and hands on what it is given.
func (s *Server) standAside() {
	if s.raft == nil {
		return
	}
	s.raft.SetVoteDelay(time.Minute)
	s.wg.Go(func() {
		for pauseFor(s.lifetime, 20*time.Millisecond) {
			if !s.raft.IsLeader() {
				continue
			}
			if err := s.raft.Yield(s.lifetime, ""); err != nil {
				s.log.Debug("raft's leadership not handed on", "error", err)
			}
		}
	})
}

// turn is a mutex whose wait can end with a context.
type turn chan struct{}

// Lock waits for as long as it takes.
func (t turn) Lock() { t <- struct{}{} }

// LockContext waits until ctx ends.
func (t turn) LockContext(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("init, unseal, seal or join is under way on this node: %w", context.Cause(ctx))
	}
}

// Unlock gives the turn to the next one.
func (t turn) Unlock() { <-t }
