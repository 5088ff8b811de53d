package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// Program is the Go program that a node is built into, by package locum. The zero value is none: the daemon.
type Program struct {
	// Handlers run on the active node what arrives at Server.ProgramHandler on any node, under the same index.
	Handlers []http.Handler

	// RepeatMethods are the methods of which a request may be sent to a handler again although it was delivered.
	RepeatMethods []string

	// Work runs on the active node: each is called after the activation, and returns soon after its ctx ends. An error
	// ends the leadership; the node then backs off.
	Work []func(ctx context.Context, term uint64) error

	// Key opens the static seal, where the configuration names neither file nor variable.
	Key *seal.Key

	// Found lets a node that has no cluster to join begin one, without being told to. Founded is given the root token.
	Found   bool
	Founded func(rootToken string)

	// Close ends what the program itself listens on; it is called once the node has handed over, while it still
	// forwards, and is given some time.
	Close func(ctx context.Context)
}

// headerProgram marks a request for one of the program's handlers on its way through the router. No client can send it.
const headerProgram = "Locum-Program"

// programLocks is the mark of what package locum asks of the active node's locks (locking.go).
const programLocks = "locks"

// ErrNotActive: this node is not the active one, or not in the term any more that the caller's context belongs to.
var ErrNotActive = errors.New("this node is not active, or not any more")

// ProgramHandler brings requests to the program's handler with this index on the active node.
func (s *Server) ProgramHandler(index int) http.Handler {
	mark := []string{strconv.Itoa(index)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		router := s.routing.Load()
		switch {
		case router == nil:
			answerJSON(w, http.StatusServiceUnavailable, map[string]any{"errors": []string{"this node is starting, or has ended"}, "processed": "no"})
			return
		case dropsMark(r.Header):
			answerJSON(w, http.StatusBadRequest, map[string]any{"errors": []string{"Connection names a field that is not the client's"}})
			return
		}
		ctx := forward.WithPolicy(r.Context(), forward.Policy{
			NoRedirect: true, Repeat: slices.Contains(s.opts.Program.RepeatMethods, r.Method),
		})
		r = r.WithContext(ctx)
		r.Header[headerProgram] = mark
		router.ServeHTTP(w, r)
	})
}

// dropsMark reports whether the request asks for its mark to be dropped on the way: it would arrive at the API.
func dropsMark(h http.Header) bool {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(name), headerProgram) {
				return true
			}
		}
	}
	return false
}

// unmarked takes the mark from what arrives at the API: it is not the client's to set.
func unmarked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		delete(r.Header, headerProgram)
		next.ServeHTTP(w, r)
	})
}

// repeatable is api.Repeatable for the API's own requests.
func repeatable(r *http.Request) bool { return r.Header[headerProgram] == nil && api.Repeatable(r) }

// dispatch gives a request that runs on the active node to the API, or to the program.
func (l *leading) dispatch(apiHandler http.Handler) http.Handler {
	program := l.node.opts.Program
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mark := r.Header[headerProgram]
		if len(mark) == 0 {
			apiHandler.ServeHTTP(w, r)
			return
		}
		delete(r.Header, headerProgram)
		if mark[0] == programLocks {
			l.serveLocks(w, r)
			return
		}
		i, err := strconv.Atoi(mark[0])
		if err != nil || i < 0 || i >= len(program.Handlers) {
			answerJSON(w, http.StatusNotImplemented, map[string]any{"errors": []string{
				"the active node runs a version of this program that has no such handler"}})
			return
		}
		program.Handlers[i].ServeHTTP(w, r)
	})
}

type termKey struct{}

// work begins the program's work for this term.
func (l *leading) work() {
	ctx, cancel := context.WithCancelCause(context.WithValue(l.term.Lease.Context(), termKey{}, l.term.Term))
	l.endWork = cancel
	for _, f := range l.node.opts.Program.Work {
		l.working.Go(func() {
			if err := f(ctx, l.term.Term); err != nil && ctx.Err() == nil {
				l.node.log.Error("work failed: this node gives its leadership up", "error", err)
				l.term.Abort(fmt.Errorf("work: %w", err))
			}
		})
	}
}

// stopWork tells the work to end, and waits until it has, or ctx ends.
func (l *leading) stopWork(ctx context.Context, cause error) error {
	if l.endWork == nil {
		return nil
	}
	l.endWork(cause)
	over := make(chan struct{})
	go func() { // ends with the work, which deactivate waits for
		defer close(over)
		l.working.Wait()
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("work under this leadership has not returned: %w", context.Cause(ctx))
	}
}

// awaitWork waits for the work that a lost leadership has ended. Until it has returned the lock is not given up; it can run
// out, if that takes very long.
func (l *leading) awaitWork(cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.stopWork(ctx, cause); err != nil {
		l.node.log.Error("work goes on although its context has ended: this node waits for it", "term", l.term.Term)
		l.working.Wait()
	}
}

// patience is how long the work of a lost leadership may take to return before that is worth a line in the log.
const patience = 2 * time.Second

// Tenure is this node's leadership as the program uses it.
type Tenure struct {
	Term uint64
	View *barrier.View // the entries, fenced by the term

	leading *leading
}

// TermOf is the term that a context belongs to: that of the program's work, or of a request; 0 if it is neither's.
func TermOf(ctx context.Context) uint64 {
	if term, ok := ctx.Value(termKey{}).(uint64); ok {
		return term
	}
	return forward.InfoFrom(ctx).Term
}

// Tenure returns the leadership that ctx belongs to: that of the work or of the request whose context it is, else the one
// that lasts now. ErrNotActive if that is over, or if there is none.
func (s *Server) Tenure(ctx context.Context) (*Tenure, error) {
	term := TermOf(ctx)
	u := s.life.Load()
	if u == nil {
		return nil, fmt.Errorf("%w: sealed", ErrNotActive)
	}
	l := u.leading.Load()
	if l == nil || l.locks.Load() == nil || !l.term.Lease.Valid() || term != 0 && l.term.Term != term {
		return nil, ErrNotActive
	}
	return &Tenure{Term: l.term.Term, View: u.barrier.View(&l.term.Fence), leading: l}, nil
}

// Valid reports whether the leadership lasts: to be asked after state was read, before it is used (P4).
func (t *Tenure) Valid() bool { return t.leading.term.Lease.Valid() }

// Next returns a number that no other call in this term gets.
func (t *Tenure) Next() uint64 { return t.leading.sequence.Add(1) }

// Settle says what an error of the view means for the leadership, and gives it back: who was fenced is not active any more.
func (t *Tenure) Settle(err error) error {
	if errors.Is(err, physical.ErrFenced) {
		t.leading.term.Abort(err)
		return fmt.Errorf("%w: %w", ErrNotActive, err)
	}
	return err
}

// Prepared reports whether Run has come so far that Status can be asked.
func (s *Server) Prepared() bool { return s.routing.Load() != nil }

// Counts reports whether this node's copy of the entries counts for a majority, where they lie in the nodes themselves.
func (s *Server) Counts() bool { return s.raft == nil || s.raft.Stats().Voter }

// StepDown hands the leadership of this node on, to the node with this name, or whichever is fit where it is "".
func (s *Server) StepDown(ctx context.Context, to string) error {
	u := s.life.Load()
	if u == nil {
		return fmt.Errorf("%w: sealed", ErrNotActive)
	}
	if u.leading.Load() == nil {
		return ErrNotActive
	}
	id := ""
	if to != "" {
		m, ok := u.members.find(to)
		if !ok {
			return fmt.Errorf("no standby named %q is connected", to)
		}
		id = m.ID
	}
	return u.election.StepDown(ctx, id)
}

// found begins a cluster, unless another node does it first. It is tried until one is there.
func (s *Server) found(ctx context.Context) {
	for pause := joinRetryMin; ctx.Err() == nil; pause = min(2*pause, joinRetryMax) {
		answer, err := s.Init(ctx, api.InitRequest{})
		switch {
		case err == nil:
			if s.opts.Program.Founded != nil {
				s.opts.Program.Founded(answer.RootToken)
			}
			return
		case ctx.Err() != nil:
			return
		}
		if s.over(ctx) {
			return
		}
		s.log.Warn("no cluster yet", "error", err)
		if !pauseFor(ctx, pause) {
			return
		}
	}
}

// over looks whether another node has begun the cluster: then this one goes on as a node that comes later.
func (s *Server) over(ctx context.Context) bool {
	if err := s.ops.LockContext(ctx); err != nil {
		return true
	}
	defer s.ops.Unlock()
	if s.life.Load() != nil {
		return true
	}
	if st, err := s.readSeal(ctx); err != nil || !st.initialized {
		return false
	}
	if s.raft == nil && s.ha {
		s.awaitOthers(s.sealing.Load())
	}
	return true
}

// closeProgram ends the program's own listeners.
func (s *Server) closeProgram(skip context.Context) {
	if s.opts.Program.Close == nil {
		return
	}
	ctx, cancel := context.WithTimeout(skip, settleListeners)
	defer cancel()
	s.opts.Program.Close(ctx)
}
