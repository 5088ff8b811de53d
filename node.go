package locum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/locum-ha/locum/election"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/listener"
	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/physical"
)

// ErrNotActive: what was asked for needs the active node, and this one is not, or not in the term any more that the
// context belongs to.
var ErrNotActive = server.ErrNotActive

// Why a leadership ended: the causes of OnActive's context, for errors.Is.
var (
	// ErrSteppedDown: as planned; another node takes over, or this one ends.
	ErrSteppedDown = election.ErrSteppedDown
	// ErrExpired: the lock could not be renewed in time: the data store, or a majority of the nodes, cannot be reached, or this node was
	// frozen.
	ErrExpired = election.ErrExpired
)

// Node is one member of a cluster, in this process. New makes it; Protect, Serve and OnActive say what it is for; Run is its
// life. The other methods may be called at any time, by any goroutine.
type Node struct {
	cfg    *config.Config
	given  Config
	log    *slog.Logger
	server *server.Server

	mu       sync.Mutex
	started  bool
	handlers []http.Handler
	work     []func(context.Context, uint64) error
	serves   []serving
	closers  []func(context.Context) error
	working  sync.WaitGroup // the goroutines of serves
}

// serving is a port that Serve asked for.
type serving struct {
	addr     string
	index    int
	listener *listener.Listener // nil until Run has opened it
}

// New checks the configuration, all of it at once, and does no I/O but for looking at the files that it names.
func New(c Config) (*Node, error) {
	cfg, err := c.complete()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, given: c, log: c.Logger}
	if n.log == nil {
		n.log = slog.Default()
	}
	return n, nil
}

// Protect makes h run on the active node only. What it returns is to be served on every node, by whatever server the program
// has: a request that arrives at a standby is passed on to the active node and answered from there; while nobody is active, or
// the active node changes, it waits. h learns by its request's context, whose cause says why, that it should give up: the client
// is gone, or this node is not active any more.
//
// Whoever serves the result itself hands its server's Shutdown to BeforeEnd. Serve does all that.
//
// It must be called before Run, in the same order on all nodes: that is how they know which handler is meant.
func (n *Node) Protect(h http.Handler) http.Handler {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.late("Protect") {
		return http.HandlerFunc(notServed)
	}
	index := len(n.handlers)
	n.handlers = append(n.handlers, h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := n.running()
		if s == nil {
			notServed(w, r)
			return
		}
		s.ProgramHandler(index).ServeHTTP(w, r)
	})
}

// Serve protects h and lets clients come to it at addr, host:port or unix:///path, from Run's beginning until this node has
// handed over and its last request is answered. It speaks HTTP/1.1 and HTTP/2, with TLS if Config.CertFile is set and else in
// plain; so h may be a grpc.Server. It must be called before Run, in the same order on all nodes.
func (n *Node) Serve(addr string, h http.Handler) {
	n.Protect(h)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.late("Serve") {
		return
	}
	n.serves = append(n.serves, serving{addr: addr, index: len(n.handlers) - 1})
}

// OnActive lets f run whenever this node is active, and nowhere else at that time. Its ctx ends when the leadership does: as
// planned, after requests in flight have been answered, or because the lease was lost; its cause says which: ErrSteppedDown, or why it was lost. f must return soon
// after: the next node does not become active before it has, unless that takes longer than the lock lasts. An error that f returns earlier ends the
// leadership, and another node tries. Returning nil earlier is fine.
//
// term is the number of the leadership, higher than every one before. Who passes it to another system, which refuses
// lower ones, is safe there, too, from a node that was frozen and does not know yet. It must be called before Run.
func (n *Node) OnActive(f func(ctx context.Context, term uint64) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.late("OnActive") {
		return
	}
	n.work = append(n.work, f)
}

// BeforeEnd lets f run at the end of Run, when this node has handed over and still forwards: the time to shut a server down
// that serves what Protect returned. Its ctx bounds it; http.Server.Shutdown fits.
func (n *Node) BeforeEnd(f func(context.Context) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.late("BeforeEnd") {
		return
	}
	n.closers = append(n.closers, f)
}

// late reports, loudly, a call that comes after Run has begun: the other nodes would not know of it.
func (n *Node) late(method string) bool {
	if n.started {
		n.log.Error("called after Run: it has no effect", "method", method)
	}
	return n.started
}

// notServed answers for what this node cannot bring anywhere yet, or not any more.
func notServed(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"errors":["this node has not started"],"processed":"no"}`) // the client may be gone
}

func (n *Node) running() *server.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server
}

// Run is the node's life. It opens the store and the ports, finds or begins the cluster, and takes part in it. When ctx ends
// the node steps down, finishes what is in flight here, passes on what still comes, and closes; Run returns when everything that it began
// has ended. It can be called once.
func (n *Node) Run(ctx context.Context) error {
	if err := n.prepare(); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	failed := make(chan error, len(n.serves))
	defer n.working.Wait()
	defer n.closeSoon()
	for _, s := range n.serves {
		if err := s.listener.Open(); err != nil {
			return err
		}
	}
	for _, s := range n.serves {
		n.working.Go(func() {
			if err := s.listener.Serve(); err != nil {
				failed <- fmt.Errorf("serve %s: %w", s.addr, err)
				end()
			}
		})
	}
	err := n.server.Run(ctx, context.Background())
	select {
	case broken := <-failed:
		return errors.Join(broken, err)
	default:
		return err
	}
}

// prepare makes the server of what Protect, Serve and OnActive have gathered.
func (n *Node) prepare() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.started {
		return errors.New("locum: Run can be called once")
	}
	n.started = true
	key := n.given.Key
	s, err := server.New(n.cfg, server.Options{
		Version: n.given.Version, Logger: n.log, Open: n.open,
		Program: server.Program{
			Handlers: n.handlers, Work: n.work, RepeatMethods: n.given.RepeatMethods, Key: &key,
			Found: n.founds(), Founded: n.founded, Close: n.close,
		},
	})
	if err != nil {
		return err
	}
	n.server = s
	for i := range n.serves {
		l, err := n.newListener(n.serves[i].addr, n.serves[i].index)
		if err != nil {
			return err
		}
		n.serves[i].listener = l
	}
	return nil
}

// founds reports whether this node may begin the cluster: nothing is left in Join but itself.
func (n *Node) founds() bool {
	for _, j := range n.cfg.Storage.Raft.RetryJoin {
		if strings.TrimSuffix(j.LeaderAPIAddr, "/") != n.cfg.APIAddr {
			return false
		}
	}
	return true
}

func (n *Node) founded(root string) {
	if n.given.Founded != nil {
		n.given.Founded(Secret(root))
	}
}

// open opens the stores that the program named.
func (n *Node) open(ctx context.Context, _ *config.Config, host physical.Host) (physical.Stores, error) {
	opened, err := n.given.Storage.OpenStores(ctx, host)
	if err != nil {
		return physical.Stores{}, err
	}
	if opened.Storage == nil {
		err := fmt.Errorf("%q keeps a lock and no entries: name it in LockStorage", n.given.Storage.Kind())
		return physical.Stores{}, errors.Join(err, opened.Lock.Close())
	}
	if n.given.LockStorage == nil {
		return opened, nil
	}
	lock, err := n.given.LockStorage.OpenStores(ctx, host)
	if err == nil && lock.Lock == nil {
		err = errors.Join(fmt.Errorf("%q keeps no lock that other nodes could see", n.given.LockStorage.Kind()), lock.Storage.Close())
	}
	if err != nil {
		return physical.Stores{}, errors.Join(err, opened.Storage.Close())
	}
	opened.Lock = lock.Lock
	return opened, nil
}

// closeSoon closes what is open still when Run ends before the node could hand over.
func (n *Node) closeSoon() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	n.close(ctx)
}

// close ends what the program listens on. The second time it does nothing.
func (n *Node) close(ctx context.Context) {
	n.mu.Lock()
	closers := n.closers
	n.closers = nil
	n.mu.Unlock()
	var wg sync.WaitGroup
	for _, f := range closers {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				n.log.Warn("not closed cleanly", "error", err)
			}
		})
	}
	for _, s := range n.serves {
		wg.Go(func() {
			if err := s.listener.Shutdown(ctx); err != nil {
				n.log.Warn("connections cut at the end", "listener", s.addr, "error", err)
			}
		})
	}
	wg.Wait()
}

// Reload reads certificate files again; connections that are open go on. If they cannot be used nothing changes.
func (n *Node) Reload() error {
	s := n.running()
	if s == nil {
		return errors.New("locum: the node has not started")
	}
	var uses []func()
	for _, p := range n.serves {
		use, err := p.listener.Load()
		if err != nil {
			return err
		}
		uses = append(uses, use)
	}
	if err := s.Reload(); err != nil {
		return err
	}
	for _, use := range uses {
		use()
	}
	return nil
}

// Role is what a node is at a moment.
type Role string

// The roles.
const (
	Starting Role = "starting" // not in a cluster yet, or it cannot read the storage
	Standby  Role = "standby"
	Active   Role = "active"
)

// State is what a node knows of itself and the cluster. It comes from memory and is out of date the moment after.
type State struct {
	Node   string // this node's name
	Role   Role
	Leader Leader // the active node; zero while none is known
}

// Leader is the active node.
type Leader struct {
	Node        string // its name
	Term        uint64
	APIAddr     string
	ClusterAddr string
}

// State describes the node, at once, in every state (P10).
func (n *Node) State() State {
	st := State{Node: n.cfg.NodeName, Role: Starting}
	s := n.running()
	if s == nil || !s.Prepared() {
		return st
	}
	status := s.Status()
	l := status.Leader
	st.Leader = Leader{Node: l.Name, Term: l.Term, APIAddr: l.APIAddr, ClusterAddr: l.ClusterAddr}
	switch {
	case status.Sealed:
	case status.Active:
		st.Role = Active
	default:
		st.Role = Standby
	}
	return st
}

// Leader returns the active node, if one is known.
func (n *Node) Leader() (Leader, bool) {
	l := n.State().Leader
	return l, l.Node != ""
}

// Ready waits until this node serves requests: it is active, or follows the one that is; and, where the storage runs in the
// nodes themselves, its copy counts: until then the cluster would not survive the loss of another node.
func (n *Node) Ready(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		st, s := n.State(), n.running()
		if (st.Role == Active || st.Role == Standby && st.Leader.Node != "") && s.Counts() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("locum: not ready: %w", context.Cause(ctx))
		}
	}
}

// TermOf is the number of the leadership that a context belongs to, that of a protected handler's request or of OnActive; 0 if
// it is neither's.
func TermOf(ctx context.Context) uint64 { return server.TermOf(ctx) }

// StepDown hands this node's leadership on, to the node with the name to, or to the fittest where it is "". It returns when
// this node is not active any more, or ErrNotActive if it was not.
func (n *Node) StepDown(ctx context.Context, to string) error {
	s := n.running()
	if s == nil {
		return ErrNotActive
	}
	return s.StepDown(ctx, to)
}
