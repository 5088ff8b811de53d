package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// Config is one application. Name is required; without Command somebody else starts it.
type Config struct {
	Name string
	Node string // this node's name

	Command     []string
	Env         []string // of the command, before what Locum adds; NAME=value
	Dir         string
	User, Group string
	Containment string
	Warm        bool // it runs in both roles

	Health              Health
	OnActive, OnStandby []string
	HookTimeout         time.Duration // default 10 s
	RoleFile            string
	StartTimeout        time.Duration  // default 30 s
	StopSignal          syscall.Signal // default SIGTERM
	StopTimeout         time.Duration  // default 10 s
	Restarts            int
	RestartWindow       time.Duration // default 1 min
	Runner              Runner        // required with Command, and for hooks and checks that are commands
	Address             func() string // LOCUM_ADDR
	Token               Tokens        // LOCUM_TOKEN; nil: none
	GiveUp              func(error)   // it failed too often on the active node; called from a goroutine of its own
	Logger              *slog.Logger
	Observer            Observer
	clock               func() boottime.Instant
}

// Tokens mints what an application shows to Locum's API.
type Tokens interface {
	// Mint makes a token for one start of the application.
	Mint(ctx context.Context, application string) (secret string, err error)
	// Renew keeps it alive for as long again; RenewEvery is how often that is to be done.
	Renew(ctx context.Context, application, secret string) error
	RenewEvery() time.Duration
	// Revoke ends it.
	Revoke(ctx context.Context, application, secret string) error
}

// Observer is told of what is worth a metric. Every function may be nil; none may block.
type Observer struct {
	Changed func(State)
	Exited  func(Exit)
	Hook    func(name string, took time.Duration, err error)
	GaveUp  func(error)
}

// State is an application on this node, at one instant.
type State struct {
	Name     string
	Phase    Phase
	Role     Role
	PID      int    // of the command; 0 while it does not run
	Starts   uint64 // so far
	Failures int    // within the window
	Err      error  // why it does not work
	LastExit Exit   // of the last command that ended
}

// Healthy reports whether requests can be sent to it.
func (s State) Healthy() bool { return s.Phase == Healthy }

// Application is one application on this node.
type Application struct {
	cfg    Config
	log    *slog.Logger
	check  check
	client *http.Client

	turn   sync.Mutex // one of Activate, Stop and Kill at a time changes the role
	events chan happening
	asks   chan ask
	passed chan syscall.Signal
	begun  chan struct{} // Run has begun
	over   chan struct{} // Run has returned
	state  atomic.Pointer[State]
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
}

// ask is an event from outside the loop, with who waits for its report.
type ask struct {
	ev      lifeEvent
	role    Role
	report  chan error // nil: nobody waits
	handled chan struct{}
}

// happening is an event from one of the loop's own goroutines, with what the pure part has no use for.
type happening struct {
	lifeEvent
	process Process // lifeStarted
	exit    *Exit   // lifeExited
}

// ErrRefused: the application cannot be active on this node, by a hook, a start that failed, or what its health says.
var ErrRefused = errors.New("refuses to be active")

// ErrStopped: the application's Run has returned.
var ErrStopped = errors.New("the application is not supervised any more")

// New checks the configuration.
func New(cfg Config) (*Application, error) {
	def := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	def(&cfg.HookTimeout, 10*time.Second)
	def(&cfg.StartTimeout, 30*time.Second)
	def(&cfg.StopTimeout, 10*time.Second)
	def(&cfg.RestartWindow, time.Minute)
	def(&cfg.Health.Interval, time.Second)
	def(&cfg.Health.Timeout, time.Second)
	if cfg.Health.Failures <= 0 {
		cfg.Health.Failures = 3
	}
	if cfg.StopSignal == 0 {
		cfg.StopSignal = syscall.SIGTERM
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.clock == nil {
		cfg.clock = boottime.Now
	}
	switch {
	case cfg.Name == "":
		return nil, errors.New("supervise: an application needs a name")
	case len(cfg.Command) > 0 && cfg.Runner == nil:
		return nil, fmt.Errorf("supervise: %s: a command needs a Runner", cfg.Name)
	}
	a := &Application{
		cfg: cfg, log: cfg.Logger.With("application", cfg.Name), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		events: make(chan happening, 16), asks: make(chan ask), passed: make(chan syscall.Signal), begun: make(chan struct{}), over: make(chan struct{}), changed: make(chan struct{}),
	}
	a.state.Store(&State{Name: cfg.Name})
	var err error
	a.check, err = healthCheck(cfg.Health, func(ctx context.Context, args []string) error {
		c := a.command(Role{}, "")
		c.Args, c.Quiet = args, true
		if cfg.Runner == nil {
			return ErrGuardian
		}
		return a.runToEnd(ctx, c)
	})
	if err != nil {
		return nil, fmt.Errorf("supervise: %s: %w", cfg.Name, err)
	}
	return a, nil
}

// Name is the application's.
func (a *Application) Name() string { return a.cfg.Name }

// Warm reports whether it runs in both roles.
func (a *Application) Warm() bool { return a.cfg.Warm }

// State is how it stands, from memory.
func (a *Application) State() State { return *a.state.Load() }

// Changed is closed at the next change of State.
func (a *Application) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// Signal passes a signal on to the command, if it runs.
func (a *Application) Signal(s syscall.Signal) {
	select {
	case a.passed <- s:
	case <-a.over:
	}
}

// Activate makes it the active node's: it is started (cold) or told (warm), and is healthy when Activate returns nil. Anything else
// refuses: then, and when ctx ends, Stop or Kill must follow.
func (a *Application) Activate(ctx context.Context, term uint64) error {
	a.turn.Lock()
	defer a.turn.Unlock()
	role := Role{Active: true, Term: term}
	select {
	case <-a.begun:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if a.cfg.Warm { // it hears of its role while it runs
		if err := a.ask(ctx, ask{ev: lifeEvent{kind: lifeWant, want: true, active: true}, role: role, report: make(chan error, 1)}); err != nil {
			return fmt.Errorf("application %q %w: %w", a.cfg.Name, ErrRefused, err)
		}
	}
	if err := a.runHooks(ctx, "on_active", a.cfg.OnActive, role); err != nil {
		return fmt.Errorf("application %q %w: %w", a.cfg.Name, ErrRefused, err)
	}
	if err := writeRole(a.cfg.RoleFile, a.cfg.Name, a.cfg.Node, role); err != nil {
		return fmt.Errorf("application %q %w: %w", a.cfg.Name, ErrRefused, err)
	}
	if !a.cfg.Warm {
		if err := a.ask(ctx, ask{ev: lifeEvent{kind: lifeWant, want: true, active: true}, role: role, report: make(chan error, 1)}); err != nil {
			return fmt.Errorf("application %q %w: %w", a.cfg.Name, ErrRefused, err)
		}
	}
	return nil
}

// ask tells the loop, which has taken it in when ask returns, and waits for the report if there is to be one.
func (a *Application) ask(ctx context.Context, q ask) error {
	q.handled = make(chan struct{})
	select {
	case a.asks <- q:
		<-q.handled
	case <-a.over:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if q.report == nil {
		return nil
	}
	select {
	case err := <-q.report:
		return err
	case <-a.over:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Stop is the planned way out of the active role: a cold application ends, by its stop signal and, when its time or ctx is over, by
// force; then its on_standby hooks run, each within its own time. A warm one is told, and restarted if it does not agree. It returns when that is done.
func (a *Application) Stop(ctx context.Context) error {
	a.turn.Lock()
	defer a.turn.Unlock()
	was := a.State().Role
	role := Role{Term: was.Term}
	var err error
	if !a.cfg.Warm {
		err = a.tell(ask{ev: lifeEvent{kind: lifeWant}, role: role})
		err = errors.Join(err, a.awaitStopped(ctx))
	}
	err = errors.Join(err, writeRole(a.cfg.RoleFile, a.cfg.Name, a.cfg.Node, role))
	if herr := a.runHooks(context.WithoutCancel(ctx), "on_standby", a.cfg.OnStandby, role); herr != nil {
		err = errors.Join(err, herr)
		if a.cfg.Warm { // it may take itself for the active one still
			err = errors.Join(err, a.tell(ask{ev: lifeEvent{kind: lifeKill, want: true}, role: role}))
			a.awaitGone()
			return err
		}
	}
	if a.cfg.Warm {
		err = errors.Join(err, a.tell(ask{ev: lifeEvent{kind: lifeWant, want: true}, role: role}))
	}
	return err
}

// Kill is the way out when the lease is lost: everything of it ends at once, and is seen to have ended when Kill returns. A warm
// application is started again, as a standby.
func (a *Application) Kill(cause error) {
	a.turn.Lock()
	defer a.turn.Unlock()
	role := Role{Term: a.State().Role.Term}
	if err := a.tell(ask{ev: lifeEvent{kind: lifeKill, want: a.cfg.Warm}, role: role}); err != nil {
		return // it ended with Run
	}
	a.awaitGone()
	if err := writeRole(a.cfg.RoleFile, a.cfg.Name, a.cfg.Node, role); err != nil {
		a.log.Error("role not told", "error", err)
	}
	if err := a.runHooks(context.Background(), "on_standby", a.cfg.OnStandby, role); err != nil {
		a.log.Error("application not told that it is not active any more", "error", err, "cause", cause)
	}
}

func (a *Application) tell(q ask) error { return a.ask(context.Background(), q) }

// awaitStopped waits until it has ended by itself or by its stop timeout; the end of ctx shortens that.
func (a *Application) awaitStopped(ctx context.Context) error {
	for {
		changed := a.Changed()
		if s := a.State(); s.Phase == Stopped {
			return nil
		}
		select {
		case <-changed:
		case <-a.over:
			return nil
		case <-ctx.Done():
			if err := a.tell(ask{ev: lifeEvent{kind: lifeKill}, role: a.State().Role}); err != nil {
				return nil // it ended with Run
			}
			a.awaitGone()
			return nil
		}
	}
}

// slowEnd is how often it is said that a tree has not ended yet.
const slowEnd = 15 * time.Second

// awaitGone waits until nothing runs that ran when it was called. There is no other limit: who calls must not go on as if it had ended (P2).
func (a *Application) awaitGone() {
	slow := time.NewTicker(slowEnd)
	defer slow.Stop()
	for began := time.Now(); ; {
		changed := a.Changed()
		if s := a.State(); s.Phase != Stopping {
			return
		}
		select {
		case <-changed:
		case <-a.over:
			return
		case <-slow.C:
			a.log.Error("application not seen to end: the lock is not released before that", "waited", time.Since(began).Round(time.Second))
		}
	}
}

// environment is the command's.
func (a *Application) environment(role Role, token string) []string {
	env := append([]string(nil), a.cfg.Env...)
	env = append(env, "LOCUM_APPLICATION="+a.cfg.Name, "LOCUM_NODE="+a.cfg.Node, "LOCUM_ROLE="+role.String(),
		"LOCUM_TERM="+strconv.FormatUint(role.Term, 10))
	if a.cfg.Address != nil {
		env = append(env, "LOCUM_ADDR="+a.cfg.Address())
	}
	if token != "" {
		env = append(env, "LOCUM_TOKEN="+token)
	}
	if network, address, err := dialTarget(a.cfg.Health.Upstream); err == nil && network == "tcp" {
		env = append(env, "PORT="+address[strings.LastIndexByte(address, ':')+1:])
	}
	return lastOfEach(env)
}

// lastOfEach drops what a later entry of the same name replaces: of two, most programs would take the first.
func lastOfEach(env []string) []string {
	seen := map[string]bool{}
	out := make([]string, 0, len(env))
	for _, v := range slices.Backward(env) {
		name, _, _ := strings.Cut(v, "=")
		if !seen[name] {
			seen[name] = true
			out = append(out, v)
		}
	}
	slices.Reverse(out)
	return out
}

func (a *Application) command(role Role, token string) Command {
	return Command{
		Args: a.cfg.Command, Env: a.environment(role, token), Dir: a.cfg.Dir, User: a.cfg.User, Group: a.cfg.Group,
		Containment: a.cfg.Containment,
	}
}
