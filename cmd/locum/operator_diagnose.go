package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/diagnose"
	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/internal/stores"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// warningsCode is the exit code of diagnose where nothing is wrong for certain.
const warningsCode = exitCode(2)

func (a *app) diagnoseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diagnose -config FILE|DIR",
		Short: "What is wrong with a node that won't start, unseal, join or be reached",
		Long: `Looks at everything that a node needs, on its own machine, whether it runs or not, and says in plain words what is wrong
and what to do: configuration, certificates, the seal's key, the data directory and its disk or the data store that the nodes share, names, ports, the other
nodes and their clocks. It changes nothing. Run it as the user who runs the node. With a token, LOCUM_TOKEN, it knows the
members of the cluster, too, and tries the cluster port of each.

The exit code is 0 if all is well, 2 if there are warnings, 1 if there are errors.`,
		Example: "  locum operator diagnose -config /etc/locum/locum.hcl\n  sudo -u locum locum operator diagnose -config /etc/locum -format=json",
		Args:    cobra.NoArgs,
	}
	source := a.source()
	cmd.Flags().StringArrayVar(&source.Paths, "config", nil, "`file` or directory of the node's configuration; may be repeated")
	cmd.Flags().StringVar(&source.AdvertiseAddr, "cluster-advertise-addr", "", "`URL`, if the node is started with it")
	quiet := cmd.Flags().Bool("quiet", false, "only what is not as it should be")
	timeout := cmd.Flags().Duration("timeout", 0, "how `long` to wait for each answer (3s)")
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(source.Paths) == 0 {
			return withHint(errors.New("no configuration"), "name the one of the node that is to be looked at: -config FILE")
		}
		progress := a.progress()
		options := a.diagnoseOptions(source)
		options.Timeout = *timeout
		options.Progress = func(check string) { progress("looking at " + check) }
		report := diagnose.Run(cmd.Context(), options)
		progress("")
		if *quiet {
			report.Findings = notable(report.Findings)
		}
		if err := a.show(*format, report, func(w io.Writer) { a.findings(w, report) }); err != nil {
			return err
		}
		switch report.Result {
		case diagnose.Error:
			return exitCode(1)
		case diagnose.Warning:
			return warningsCode
		}
		return nil
	}
	return cmd
}

func (a *app) diagnoseOptions(source config.Source) diagnose.Options {
	env := client.FromEnv(a.env)
	options := diagnose.Options{Source: source, OpenSeal: openSeal, OpenStores: openStores, Token: string(env.Token), RaftALPN: cluster.ALPNRaft}
	if pair, err := tls.LoadX509KeyPair(env.ClientCert, env.ClientKey); err == nil {
		options.ClientCerts = []tls.Certificate{pair}
	}
	return options
}

// openStores opens the data stores as the node does.
func openStores(ctx context.Context, cfg *config.Config) (physical.Stores, error) {
	opened, err := stores.Open(ctx, cfg, physical.Host{NodeName: cfg.NodeName, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return physical.Stores{}, err
	}
	if err := server.StoresFit(cfg, opened); err != nil {
		if opened.Lock != nil && any(opened.Lock) != any(opened.Storage) {
			err = errors.Join(err, opened.Lock.Close())
		}
		return physical.Stores{}, errors.Join(err, opened.Storage.Close())
	}
	return opened, nil
}

// openSeal reads a static seal's key.
func openSeal(s config.Seal) (func(context.Context, []byte) error, error) {
	var key seal.Key
	var err error
	if s.Static.KeyFile != "" {
		key, err = seal.ReadKeyFile(s.Static.KeyFile)
	} else {
		key, err = seal.ReadKeyEnv(s.Static.KeyEnv)
	}
	if err != nil {
		return nil, err
	}
	static := seal.NewStatic(key)
	key.Wipe()
	return func(ctx context.Context, rootKey []byte) error {
		plain, err := static.Unwrap(ctx, rootKey)
		clear(plain)
		return err
	}, nil
}

func notable(all []diagnose.Finding) []diagnose.Finding {
	left := []diagnose.Finding{}
	for _, f := range all {
		if f.Level == diagnose.Warning || f.Level == diagnose.Error {
			left = append(left, f)
		}
	}
	return left
}

// levelColours are how findings look on a terminal.
var levelColours = map[diagnose.Level]colour{diagnose.OK: green, diagnose.Skipped: faint, diagnose.Warning: yellow, diagnose.Error: red}

// findings prints them by what was looked at.
func (a *app) findings(w io.Writer, report diagnose.Report) {
	counts := map[diagnose.Level]int{}
	for _, check := range diagnose.Checks {
		head := check
		for _, f := range report.Findings {
			if f.Check != check {
				continue
			}
			if head != "" {
				fmt.Fprintln(w, head)
				head = ""
			}
			counts[f.Level]++
			level := fmt.Sprintf("%-8s", f.Level)
			fmt.Fprintf(w, "  %s %s\n", a.paint(a.out, levelColours[f.Level], level), f.What)
			if f.Do != "" {
				fmt.Fprintf(w, "           do: %s\n", f.Do)
			}
		}
	}
	fmt.Fprintf(w, "\n%s, %s\n", plural(counts[diagnose.Error], "error"), plural(counts[diagnose.Warning], "warning"))
}

func plural(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
