package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/footprint"
	"github.com/locum-ha/locum/internal/notify"
	"github.com/locum-ha/locum/internal/stores"
)

func (a *app) serverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server [-config FILE|DIR]",
		Short: "Run one node",
		Long: `Runs one node until it is ended. SIGTERM and SIGINT let it step down, serve what is in flight, and exit; a second one
skips the waiting. SIGHUP reads certificates and log level again; a bad file leaves the running configuration as it is.

"locum help config" lists every setting. Without -config, and with HA_MODE in the environment, the node is a cache and nothing else,
set up by the environment alone: see docs/cache.md.`,
		Example: "  locum server -config /etc/locum/locum.hcl\n  locum server -config base.hcl -config /etc/locum/conf.d\n" +
			"  HA_MODE=true HA_HOSTS=http://app-0.app:8402,http://app-1.app:8402,http://app-2.app:8402 CACHE_AUTH_TOKEN=… locum server",
		Args: cobra.NoArgs,
	}
	source := a.source()
	cmd.Flags().StringArrayVar(&source.Paths, "config", nil, "`file` or directory; may be repeated, later ones override")
	cmd.Flags().StringVar(&source.AdvertiseAddr, "cluster-advertise-addr", "", "`URL` where clients reach this node: another name for api_addr")
	level := cmd.Flags().String("log-level", "", "`debug`, info, warn or error, instead of the file's log_level")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkLevel(*level); err != nil {
			return err
		}
		if len(source.Paths) == 0 && config.CacheMode(a.env) {
			return a.serveCache(cmd.Context(), *level)
		}
		if len(source.Paths) == 0 {
			return withHint(fmt.Errorf("no configuration"), "name it: locum server -config FILE; to try things out: locum dev")
		}
		return a.serve(cmd.Context(), source, *level)
	}
	return cmd
}

// source is what a node's configuration is made of, for whatever command: all of them read it as the server does.
func (a *app) source(paths ...string) config.Source {
	return config.Source{Paths: paths, LookupEnv: a.env, StoreAddress: stores.HostAddress}
}

// checkLevel refuses a -log-level that there is not.
func checkLevel(name string) error {
	if name == "" || slices.Contains([]string{"debug", "info", "warn", "error"}, name) {
		return nil
	}
	return withHint(fmt.Errorf("there is no log level %q", name), "write -log-level with debug, info, warn or error")
}

// serve runs a node under the signals of its process.
func (a *app) serve(ctx context.Context, source config.Source, override string) error {
	load := func() (*config.Config, error) {
		c, err := config.Read(source.Paths...)
		if err != nil {
			return nil, err
		}
		if override != "" {
			c.LogLevel = override
		}
		return c, c.Complete(source)
	}
	_, err := a.runNode(ctx, load, nodeExtras{})
	return err
}

// nodeExtras are what the command run wants besides of a node.
type nodeExtras struct {
	founded func(rootToken string) // the node begins a cluster where it finds none
	ready   func()
	passOn  bool // signals without a meaning for Locum are the application's
}

// runNode runs a node under the signals of its process, and returns the application's exit code beside its own error.
func (a *app) runNode(ctx context.Context, load func() (*config.Config, error), extras nodeExtras) (exit int, err error) {
	c, err := load()
	if err != nil {
		return 0, err
	}
	level := &slog.LevelVar{}
	level.Set(levelOf(c.LogLevel))
	logger := slog.New(handlerFor(c.LogFormat, a.out, level))
	var n node
	err = a.keep(ctx, logger, level, footprint.Headroom, extras.passOn, func(ready func()) (node, error) {
		var err error
		n, err = newNode(c, logger, a.out, extras.founded, func() {
			ready()
			if extras.ready != nil {
				extras.ready()
			}
		})
		return n, err
	}, func(n node) error { return reload(load, n, level, c, logger) })
	if a, ok := n.(application); ok && err == nil {
		exit = a.ExitCode()
	}
	return exit, err
}

// keep runs a node under the signals of its process, and tells the service manager. With passOn signals without a meaning for Locum
// are the application's. Headroom is for footprint.Breathe.
func (a *app) keep(ctx context.Context, logger *slog.Logger, level *slog.LevelVar, headroom uint64, passOn bool, build func(ready func()) (node, error), reload func(node) error) error {
	systemd := notify.New(a.env)
	tell := func(state string) {
		if err := systemd.Tell(state); err != nil {
			logger.Warn("service manager not told", "state", state, "error", err)
		}
	}
	n, err := build(func() { tell(notify.Ready) })
	if err != nil {
		return err
	}
	pass := func(syscall.Signal) {}
	if a, ok := n.(application); ok && err == nil {
		pass = a.Signal
	}
	ending, end := context.WithCancelCause(ctx)
	defer end(nil)
	skipping, skip := context.WithCancelCause(context.Background())
	defer skip(nil)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { systemd.Watch(skipping) })
	wg.Go(func() { footprint.AfterStart(skipping) })
	wg.Go(func() { footprint.Breathe(skipping, headroom) })
	wg.Go(func() {
		watchSignals(over, passOn, signals{
			pass: pass,
			end:  func(s os.Signal) { tell(notify.Stopping); end(fmt.Errorf("signal: %s", s)) },
			skip: func(s os.Signal) { skip(fmt.Errorf("second signal: %s", s)) },
			reload: func() {
				if err := reload(n); err != nil {
					logger.Error("configuration not reloaded; the running one goes on", "error", err)
					return
				}
				logger.Info("configuration reloaded", "log_level", level.Level().String())
			},
		})
	})
	err = n.Run(ending, skipping)
	skip(nil)
	close(over)
	wg.Wait()
	return err
}

// reload takes over what may change at run time.
func reload(load func() (*config.Config, error), n node, level *slog.LevelVar, running *config.Config, logger *slog.Logger) error {
	c, err := load()
	if err != nil {
		return err
	}
	if err := n.Reload(); err != nil {
		return err
	}
	level.Set(levelOf(c.LogLevel))
	if changed := running.Changed(c); len(changed) > 0 {
		logger.Warn("settings have changed that this node takes over when it is started the next time", "settings", changed)
	}
	return nil
}

// signals is what to do at which signal.
type signals struct {
	end, skip func(os.Signal)
	reload    func()
	pass      func(syscall.Signal)
}

// watchSignals acts on the process's signals until over is closed.
func watchSignals(over <-chan struct{}, passOn bool, do signals) {
	caught := make(chan os.Signal, 4)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if passOn {
		signal.Notify(caught, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT)
	}
	defer signal.Stop(caught)
	ending := false
	for {
		select {
		case <-over:
			return
		case s := <-caught:
			switch {
			case s == syscall.SIGHUP:
				do.reload()
				if passOn {
					do.pass(syscall.SIGHUP)
				}
			case s != syscall.SIGINT && s != syscall.SIGTERM:
				do.pass(s.(syscall.Signal))
			case ending:
				do.skip(s)
			default:
				ending = true
				do.end(s)
			}
		}
	}
}

func levelOf(name string) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo // the configuration has been checked
	}
	return level
}

func handlerFor(format string, w io.Writer, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}
