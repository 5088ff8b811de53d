package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/supervise"
)

// Guardians starts a guardian. Only a program whose main calls supervise.Main has one.
type Guardians func(context.Context, supervise.GuardianConfig) (supervise.Guard, error)

// guardianship is a node's guardian, whichever process that is at the moment: one that died is replaced, and told what the last
// one knew.
type guardianship struct {
	server *Server
	begin  Guardians

	mu       sync.Mutex
	guard    supervise.Guard
	there    chan struct{} // closed while there is one
	plan     json.RawMessage
	grant    *physical.Grant
	deadline boottime.Instant
}

const guardianRetry = time.Second

// callGuardian begins to start the node's guardian, if it is to have one: for the processes of applications, and so that a crash of
// this node need not be waited out (P7). The func that it returns waits until it is there.
func (s *Server) callGuardian(ctx context.Context) (await func() error) {
	if s.opts.Guardian == nil || !s.cfg.HAEnabled() && !s.runsCommands() {
		return func() error { return nil }
	}
	g := &guardianship{server: s, begin: s.opts.Guardian, there: make(chan struct{})}
	var guard supervise.Guard
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		guard, err = g.begin(ctx, supervise.GuardianConfig{Logger: s.log.With("part", "guardian"), Observer: s.guardianObserver()})
	}()
	return func() error {
		<-done
		if err != nil && !s.runsCommands() {
			s.log.Warn("no guardian: a crash of this node is noticed by time-outs alone", "error", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("the guardian: %w", err)
		}
		g.install(guard)
		s.guardian = g
		kind, why := guard.Containment()
		if s.runsCommands() {
			s.warnOfContainment(kind, why)
		}
		return nil
	}
}

// warnOfContainment says at start what this host's containment cannot do.
func (s *Server) warnOfContainment(kind, why string) {
	const instant = "if the node, its guardian and the application's init are all killed in the same instant, "
	said := map[string]bool{}
	for _, a := range s.cfg.Applications {
		kind, why := kind, why
		if a.Containment != "" && a.Containment != supervise.ContainAuto {
			kind, why = a.Containment, "containment asks for this"
		}
		text := ""
		switch kind {
		case supervise.ContainGroup:
			text = "what an application starts is held together by a subreaper and process groups alone: " + instant +
				"processes can be left behind. Why nothing better: " + why
		case supervise.ContainCgroup:
			text = "what an application starts is held together by a cgroup: " + instant +
				"what it left in the background is ended only when a node starts here again, or by systemd with the unit. Why no PID namespace: " + why
		}
		if text != "" && !said[text] {
			said[text] = true
			s.cfg.Warnings = append(s.cfg.Warnings, text)
		}
	}
}

// runsCommands reports whether applications have something to be run.
func (s *Server) runsCommands() bool {
	for _, a := range s.cfg.Applications {
		if len(a.Command) > 0 || len(a.Health.Command) > 0 || len(a.OnActive) > 0 || len(a.OnStandby) > 0 {
			return true
		}
	}
	return false
}

func (g *guardianship) install(guard supervise.Guard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guard = guard
	if g.plan != nil {
		guard.Plan(g.plan)
	}
	if g.grant != nil {
		guard.Lease(*g.grant, g.deadline)
	}
	close(g.there)
}

// run replaces a guardian that died, until ctx ends; then it lets the last one go.
func (g *guardianship) run(ctx context.Context) error {
	for {
		g.mu.Lock()
		guard := g.guard
		g.mu.Unlock()
		select {
		case <-ctx.Done():
			return guard.Close()
		case <-guard.Done():
		}
		g.mu.Lock()
		g.there = make(chan struct{})
		g.mu.Unlock()
		if err := guard.Close(); err != nil {
			g.server.log.Debug("the dead guardian", "error", err)
		}
		for {
			next, err := g.begin(ctx, supervise.GuardianConfig{Logger: g.server.log.With("part", "guardian"), Observer: g.server.guardianObserver()})
			if err == nil {
				g.server.log.Info("a new guardian is there")
				g.install(next)
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			g.server.log.Error("no guardian: applications cannot be started", "error", err)
			if !pauseFor(ctx, guardianRetry) {
				return nil
			}
		}
	}
}

// Start runs a command under the guardian; see supervise.Runner.
func (g *guardianship) Start(ctx context.Context, c supervise.Command) (supervise.Process, error) {
	for {
		g.mu.Lock()
		guard, there := g.guard, g.there
		g.mu.Unlock()
		select {
		case <-there:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", supervise.ErrGuardian, context.Cause(ctx))
		}
		p, err := guard.Start(ctx, c)
		if !errors.Is(err, supervise.ErrGuardian) {
			return p, err
		}
		select {
		case <-guard.Done(): // and soon replaced
			if !pauseFor(ctx, 10*time.Millisecond) {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

// lease hands the election's deadline on.
func (g *guardianship) lease(grant physical.Grant, deadline boottime.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grant, g.deadline = &grant, deadline
	g.guard.Lease(grant, deadline)
}

// tellPlan says how the lock is to be released if this node dies.
func (g *guardianship) tellPlan(plan json.RawMessage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if string(plan) == string(g.plan) {
		return
	}
	g.plan = plan
	g.guard.Plan(plan)
}
