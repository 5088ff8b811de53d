package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/seal"
)

// runFlags are the flags of run.
type runFlags struct {
	application        applicationFlags
	source             config.Source
	level              string
	nodeName, dir      string
	address            string
	listen             []string
	storage, haStorage string
	invite, newInvite  bool
}

// joinVariable is where a machine finds the invitation: never in an argument, where a list of processes would show it.
const joinVariable = "LOCUM_JOIN"

func (a *app) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND…",
		Short: "Protect one application, on one machine after another",
		Long: `Makes the command highly available. The first machine begins a cluster and prints the line to run on each of the others; there it
stands in an environment variable, LOCUM_JOIN, and the same line works after every restart. The command runs on the active machine only (with
-warm on all, and is told its role), is told in PORT where to listen, and is reached on every machine at -listen. On three machines nothing
else is needed; on two, name a data store that both reach in -storage.

Output, signals and exit code are the command's: SIGTERM and SIGINT hand over and stop it, SIGHUP, SIGUSR1, SIGUSR2 and SIGQUIT are passed on.

Data lies in /var/lib/locum, for users other than root in their XDG state directory: the embedded store, the key that opens it
(seal.key) and, on the first machine, the token that may do everything (root-token). The API listens in plain HTTP: what joins a machine
is never sent, but tokens are, so use them on the machine itself, or write a configuration file with TLS.

With -config the command stands in for that of the file's application, or for one that the file does not have.`,
		Example: `  locum run -- ./server                       # first machine; it prints the line for the others
  LOCUM_JOIN=… locum run -- ./server          # every other machine
  locum run -health /healthz -listen 0.0.0.0:80 -- ./server
  LOCUM_STORAGE=postgres://… locum run -- ./server
  locum run -new-invite -- ./server           # another line; the old one is not good for new machines any more`,
	}
	f := &runFlags{source: a.source()}
	f.application.bind(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&f.source.Paths, "config", nil, "`file` or directory; may be repeated, later ones override")
	flags.StringVar(&f.source.AdvertiseAddr, "api-addr", "", "`URL` where the other machines reach this one's API; else the first private address")
	flags.StringVar(&f.nodeName, "node-name", "", "this machine's `name`; else the host name")
	flags.StringVar(&f.dir, "dir", "", "`directory` of the data; else /var/lib/locum/NAME, or locum/NAME in the XDG state directory")
	flags.StringVar(&f.address, "address", "0.0.0.0:8400", "`host:port` of the API; the cluster port is the next one")
	flags.StringArrayVar(&f.listen, "listen", nil, "`host:port` where clients come; may be repeated (default 0.0.0.0:8080 for HTTP)")
	flags.StringVar(&f.storage, "storage", "", "the data `store`: postgres://…, or a type with its settings such as \"consul address=127.0.0.1:8500\"; better in LOCUM_STORAGE; else embedded")
	flags.StringVar(&f.haStorage, "ha-storage", "", "the same for the `store` of the HA lock, if it is another one; or LOCUM_HA_STORAGE")
	flags.StringVar(&f.level, "log-level", "", "`debug`, info, warn or error")
	flags.BoolVar(&f.invite, "invite", false, "print the line for other machines, and end")
	flags.BoolVar(&f.newInvite, "new-invite", false, "replace the secret in that line, print it, and end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		command, err := commandAfterDashes(cmd, args)
		if err != nil {
			return err
		}
		return a.runApplication(cmd.Context(), f, command)
	}
	return cmd
}

func (a *app) runApplication(ctx context.Context, f *runFlags, command []string) error {
	if len(f.source.Paths) > 0 {
		return a.runWithFile(ctx, f, command)
	}
	if len(command) == 0 {
		return withHint(errors.New("no command to protect"), "write it behind --: locum run -- ./server; or name a configuration file with -config")
	}
	r := &runner{app: a, flags: f, command: command, invited: a.variable(joinVariable)}
	if err := r.prepare(); err != nil {
		return err
	}
	if f.invite || f.newInvite {
		return r.showInvitation(ctx, f.newInvite)
	}
	if err := r.key(ctx); err != nil {
		return err
	}
	extras := nodeExtras{passOn: true, ready: r.ready}
	if r.invited == "" {
		extras.founded = r.founded
	}
	exit, err := a.runNode(ctx, r.config, extras)
	r.told.Wait()
	return asExit(exit, err)
}

// asExit gives the command's own exit code.
func asExit(exit int, err error) error {
	if err == nil && exit != 0 {
		return exitCode(exit)
	}
	return err
}

// runWithFile lets the file say everything but the command.
func (a *app) runWithFile(ctx context.Context, f *runFlags, command []string) error {
	load := func() (*config.Config, error) {
		c, err := config.Read(f.source.Paths...)
		if err != nil {
			return nil, err
		}
		if f.level != "" {
			c.LogLevel = f.level
		}
		switch {
		case len(command) == 0 && len(c.Applications) == 0:
			return nil, withHint(errors.New("nothing to protect"), "write an application block, or the command behind --")
		case len(command) == 0:
		case len(c.Applications) > 1:
			return nil, withHint(fmt.Errorf("the file has %d applications, and there is one command", len(c.Applications)), "leave the command out")
		case len(c.Applications) == 1:
			c.Applications[0].Command = command
		default:
			one := f.application.application(command)
			one.Listen = config.OneOrMore(f.listen)
			c.Applications = []config.Application{one}
		}
		return c, c.Complete(f.source)
	}
	return asExit(a.runNode(ctx, load, nodeExtras{passOn: true}))
}

// variable reads the environment; "" for what is not set.
func (a *app) variable(name string) string {
	value, _ := a.env(name)
	return strings.TrimSpace(value)
}

// prepare makes the data directory.
func (r *runner) prepare() error {
	r.one = r.flags.application.application(r.command)
	r.dir = r.flags.dir
	if r.dir == "" {
		r.dir = filepath.Join(stateDir(r.app.env), r.one.Name)
	}
	var err error
	if r.dir, err = filepath.Abs(r.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return withHint(fmt.Errorf("the data directory: %w", err), "name another one with -dir")
	}
	return nil
}

// stateDir is where data is kept that outlives a restart and is this machine's own (XDG Base Directory Specification).
func stateDir(env func(string) (string, bool)) string {
	if os.Geteuid() == 0 {
		return "/var/lib/locum"
	}
	if dir, ok := env("XDG_STATE_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "locum")
	}
	if home, ok := env("HOME"); ok && home != "" {
		return filepath.Join(home, ".local", "state", "locum")
	}
	return filepath.Join(os.TempDir(), "locum")
}

// key sees to the key of the static seal: what is there already, what the cluster gives to who has its invitation, or, on the first
// machine, a new one.
func (r *runner) key(ctx context.Context) error {
	if exists(r.keyFile()) {
		return nil
	}
	if r.invited == "" {
		key := seal.NewKey()
		defer key.Wipe()
		return writeKey(r.keyFile(), key)
	}
	secret, addresses, err := parseInvitation(r.invited)
	if err != nil {
		return err
	}
	r.app.say("Asking %s for the way in …", strings.Join(addresses, ", "))
	ctx, cancel := context.WithTimeoutCause(ctx, inviteLimit, fmt.Errorf("nobody let this machine in within %s", inviteLimit))
	defer cancel()
	key, err := server.Accept(ctx, addresses, secret, r.nodeName())
	switch {
	case errors.Is(err, server.ErrInvitation):
		return withHint(err, "print the line in force on a machine that is in: locum run -invite -- "+shellWords(r.command))
	case err != nil:
		return withHint(fmt.Errorf("%s: %w", joinVariable, err), "is locum run up on one of "+strings.Join(addresses, ", ")+", and can this machine reach it?")
	}
	defer key.Wipe()
	return writeKey(r.keyFile(), key)
}

// inviteLimit is how long the other machines are waited for: all of them may be starting.
const inviteLimit = 2 * time.Minute

// writeKey writes the key so that a crash leaves it whole or not at all.
func writeKey(path string, key seal.Key) error {
	return writeSecret(path, fmt.Sprintf("%x", key[:]))
}

func writeSecret(path, text string) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	return err
}
