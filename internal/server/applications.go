package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/supervise"
)

// applications are the servers that this node protects, while it is unsealed. What clients say to them goes another way: see
// appserving.go.
type applications struct {
	node *unsealed
	all  []*supervise.Application
	ran  atomic.Bool // the first one ran when the node was asked to end

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// newApplications makes them of the configuration. None runs yet.
func (u *unsealed) newApplications() (*applications, error) {
	all := &applications{node: u, cancel: func() {}}
	for i := range u.cfg.Applications {
		cfg, err := u.applicationConfig(&u.cfg.Applications[i])
		if err != nil {
			return nil, err
		}
		app, err := supervise.New(cfg)
		if err != nil {
			return nil, err
		}
		all.all = append(all.all, app)
	}
	return all, nil
}

// applicationConfig is the configuration's block as package supervise has it.
func (u *unsealed) applicationConfig(a *config.Application) (supervise.Config, error) {
	stop, err := supervise.ParseSignal(a.StopSignal)
	if err != nil {
		return supervise.Config{}, err
	}
	cfg := supervise.Config{
		Name: a.Name, Node: u.cfg.NodeName, Command: a.Command, Env: applicationEnvironment(a, u.cfg.SecretVariables()), Dir: a.WorkingDir,
		User: a.User, Group: a.Group, Containment: a.Containment, Warm: a.Warm(),
		Health: supervise.Health{
			Upstream: a.Upstream, Path: a.Health.Path, TCP: a.Health.TCP, Command: a.Health.Command,
			Interval: a.Health.Interval, Timeout: a.Health.Timeout, Failures: a.Health.Failures,
		},
		OnActive: a.OnActive, OnStandby: a.OnStandby, HookTimeout: a.HookTimeout, RoleFile: a.RoleFile,
		StartTimeout: a.StartTimeout, StopSignal: stop, StopTimeout: a.StopTimeout, Restarts: a.Restarts, RestartWindow: a.RestartWindow,
		Address: u.localAddress, Token: (*applicationTokens)(u),
		Logger: u.log.With("part", "application"), Observer: u.applicationObserver(a.Name),
		GiveUp: func(err error) {
			if l := u.leading.Load(); l != nil {
				err = fmt.Errorf("application %q %w: %w", a.Name, errGaveUp, err)
				l.noteFailure(err)
				l.term.Abort(err)
			}
		},
	}
	if u.guardian != nil {
		cfg.Runner = u.guardian
	} else if len(a.Command) > 0 {
		return supervise.Config{}, fmt.Errorf("application %q has a command, and this program has no guardian to run it", a.Name)
	}
	return cfg, nil
}

// secretVariables are Locum's own affairs: no application inherits them.
var secretVariables = []string{
	"LOCUM_JOIN", "LOCUM_STORAGE", "LOCUM_HA_STORAGE", "LOCUM_TOKEN", "VAULT_TOKEN", "CACHE_AUTH_TOKEN", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
}

// applicationEnvironment is the command's environment, before what package supervise adds, without Locum's own secrets. A user of its own has a home of its own.
func applicationEnvironment(a *config.Application, secrets []string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains(secretVariables, name) && !slices.Contains(secrets, name) {
			env = append(env, v)
		}
	}
	if a.User != "" {
		if u, err := user.Lookup(a.User); err == nil {
			env = append(env, "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
		}
	}
	for name, value := range a.Environment {
		env = append(env, name+"="+value)
	}
	return env
}

// run supervises them until end.
func (a *applications) run() {
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	for _, app := range a.all {
		a.wg.Go(func() {
			if err := app.Run(ctx); err != nil {
				a.node.log.Error("application not supervised any more", "application", app.Name(), "error", err)
			}
		})
	}
}

// end stops those that still run, and waits.
func (a *applications) end() {
	a.cancel()
	a.wg.Wait()
	if len(a.all) > 0 && a.ran.Load() {
		a.node.exit.Store(int64(a.all[0].State().LastExit.Shell()))
	}
}

// note remembers, when the node is asked to end, whether the first of them runs: then its exit code is the node's own.
func (a *applications) note() {
	a.ran.Store(len(a.all) > 0 && a.all[0].State().PID != 0)
}

// unfit says why this node could not be active at once, though it may be a candidate: a warm application does not work. "" if it could.
func (a *applications) unfit() string {
	for _, app := range a.all {
		if s := app.State(); app.Warm() && !s.Healthy() {
			return fmt.Sprintf("application %q does not work here: %s", app.Name(), s.Phase)
		}
	}
	return ""
}

// each does something with all of them at once, and gathers what went wrong.
func (a *applications) each(do func(*supervise.Application) error) error {
	errs := make([]error, len(a.all))
	var wg sync.WaitGroup
	for i, app := range a.all {
		wg.Go(func() { errs[i] = do(app) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// activate starts or promotes them and waits until all are healthy. One that cannot spoils it for all.
func (a *applications) activate(ctx context.Context, term uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return a.each(func(app *supervise.Application) error {
		err := app.Activate(ctx, term)
		if err != nil {
			cancel(fmt.Errorf("another application cannot be active: %w", err))
		}
		return err
	})
}

// stop is the planned way out.
func (a *applications) stop(ctx context.Context) error {
	return a.each(func(app *supervise.Application) error {
		if err := app.Stop(ctx); err != nil {
			return fmt.Errorf("application %q: %w", app.Name(), err)
		}
		return nil
	})
}

// errGaveUp: an application failed too often on the active node.
var errGaveUp = errors.New("failed too often")

// gentleLimit is how long a warm application is given to become standby where the lock is still held.
const gentleLimit = 10 * time.Second

// kill is the way out when the lease is lost: everything has ended when it returns. Where the leadership ends because an application
// refuses, the lock is held on: a warm one is told, and only what does not listen is killed.
func (a *applications) kill(cause error) {
	gentle := errors.Is(cause, supervise.ErrRefused) || errors.Is(cause, errGaveUp)
	err := a.each(func(app *supervise.Application) error {
		if !gentle || !app.Warm() {
			app.Kill(cause)
			return nil
		}
		ctx, cancel := context.WithTimeoutCause(context.Background(), gentleLimit, cause)
		defer cancel()
		return app.Stop(ctx)
	})
	if err != nil {
		a.node.log.Error("application not told as it should be that it is not active", "error", err)
	}
}

// Signal passes a signal on to the applications' commands.
func (s *Server) Signal(sig syscall.Signal) {
	if u := s.life.Load(); u != nil {
		for _, app := range u.apps.all {
			app.Signal(sig)
		}
	}
}

// ExitCode is the first application's exit code, as a shell has it; 0 if it did not run here when the node was asked to end. It is known when Run has returned.
func (s *Server) ExitCode() int { return int(s.exit.Load()) }

// stopLimit is how long the applications may take to stop and to be told.
func (s *Server) stopLimit() time.Duration {
	longest := time.Duration(0)
	for _, a := range s.cfg.Applications {
		longest = max(longest, a.StopTimeout+time.Duration(len(a.OnStandby))*a.HookTimeout)
	}
	return longest
}

// applicationRow is its line in the start-up table.
func (s *Server) applicationRow(a *config.Application) string {
	row := fmt.Sprintf("%s (standby: %q", a.Name, a.Standby)
	if len(a.Command) > 0 {
		row += fmt.Sprintf(", command: %q", a.Command[0])
	}
	if a.Upstream != "" {
		row += fmt.Sprintf(", upstream: %q", a.Upstream)
	}
	if len(a.Listen) > 0 {
		row += fmt.Sprintf(", listen: %q", strings.Join(a.Listen, ", "))
	}
	if len(a.Command) > 0 && s.guardian != nil {
		kind, _ := s.guardian.guard.Containment()
		if a.Containment != supervise.ContainAuto {
			kind = a.Containment
		}
		row += fmt.Sprintf(", containment: %q", kind)
	}
	return row + ")"
}
