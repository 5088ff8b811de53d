package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/migrate"
	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/internal/stores"
	"github.com/locum-ha/locum/physical"
)

func (a *app) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate -config FILE",
		Short: "Copy all entries into another data store, or move the HA lock (offline)",
		Long: `Copies everything that a cluster keeps from one data store to another. No node of the cluster may run: end all of them first.
The file names both stores, each as a storage block does in a node's configuration:

  storage_source      "raft"       { path = "/var/lib/locum" }
  storage_destination "postgresql" { connection_url = "postgres://…" }

Entries are copied as they are, sealed: no key is needed, and none is changed. The destination must be empty. A copy that was
interrupted goes on when the command is run again; until it is complete and compared, no node takes the destination for
a cluster. The source stays as it is, but for its fence: so a node that was forgotten and becomes active while entries are copied is
noticed, and the copy does not count. After that nothing stops one: what it writes to the source is lost. The terms go on above those
of the source, under a new lineage of the HA lock.

From "raft", name the data directory of the node that was active last, and make sure yourself that all others have ended: each has
a copy of its own, so nothing here can stop or notice a majority that was forgotten, and what it still takes is lost. To "raft", the file also says node_name and cluster_addr, those
of the node that starts first on that directory; the others join it.

With -lock, FILE is the configuration of a node, in which ha_storage, or the place of the lock in it, has been changed: nothing is
copied, and the cluster goes by the new place from then on.`,
		Example: "  locum operator migrate -config migrate.hcl\n  locum operator migrate -lock -config /etc/locum/locum.hcl",
		Args:    cobra.NoArgs,
	}
	path := cmd.Flags().String("config", "", "`FILE` that names both stores; with -lock, a node's configuration")
	lock := cmd.Flags().Bool("lock", false, "only move the HA lock")
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *path == "" {
			return withHint(errors.New("no configuration"), "name the file with both stores: -config FILE; locum operator migrate -help shows one")
		}
		ctx, cancel := context.WithCancelCause(cmd.Context())
		defer cancel(nil)
		run := a.migrateEntries
		if *lock {
			run = a.moveLock
		}
		result, err := run(ctx, *path)
		if err != nil {
			return migrateHint(err)
		}
		return a.show(*format, result, func(w io.Writer) {
			if !*lock {
				fmt.Fprintf(w, "Copied and compared %d entries, %d bytes.\n", result.Entries, result.Bytes)
			}
			fmt.Fprintf(w, "The lock's new lineage is %s; the next term is above %d.\n", result.Lineage, result.Term)
		})
	}
	return cmd
}

// migrateHint says what most probably helps.
func migrateHint(err error) error {
	switch {
	case errors.Is(err, migrate.ErrNotEmpty):
		return withHint(err, "name an empty one: another path, prefix, bucket or database")
	case errors.Is(err, migrate.ErrEmpty):
		return withHint(err, "is it the right path? A cluster that is not initialised has nothing to copy")
	case errors.Is(err, physical.ErrTooLarge):
		return withHint(err, "the destination takes no value as large as this one: shorten or delete the entry first, or choose another store")
	case errors.Is(err, migrate.ErrChanged):
		return err
	case errors.Is(err, physical.ErrUnknown), errors.Is(err, physical.ErrUnavailable), errors.Is(err, context.Canceled):
		return withHint(err, "run the same command again: it goes on where it was")
	}
	return err
}

// migrateEntries copies, and tells how far it has come once a second.
func (a *app) migrateEntries(ctx context.Context, path string) (result migrate.Result, err error) {
	m, err := config.ReadMigration(path)
	if err != nil {
		return result, err
	}
	source, err := stores.OpenEntries(ctx, m.Source, physical.Host{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return result, fmt.Errorf("source %q: %w", m.Source.Type, err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	host := physical.Host{NodeName: m.NodeName, Logger: slog.New(slog.DiscardHandler)}
	if m.Destination.Type == "raft" {
		if host.ClusterAddr, err = cluster.HostPort(m.ClusterAddr); err != nil {
			return result, err
		}
	}
	destination, err := stores.OpenEntries(ctx, m.Destination, host)
	if err != nil {
		return result, fmt.Errorf("destination %q: %w", m.Destination.Type, err)
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	stop, err := migrate.Alone(ctx, destination)
	if err != nil {
		return result, fmt.Errorf("destination %q: %w", m.Destination.Type, err)
	}
	defer func() { err = errors.Join(err, stop()) }()

	told := time.Now()
	result, err = migrate.Run(ctx, migrate.Options{
		Source: source, Destination: destination,
		Last: []string{barrier.KeySealConfig, barrier.KeyRootKey, barrier.KeyKeyring}, Drop: server.OwnLife(),
		Progress: func(p migrate.Progress) {
			if now := time.Now(); now.Sub(told) >= time.Second {
				told = now
				fmt.Fprintf(a.err, "%s %d entries, %s\n", map[bool]string{false: "copied", true: "compared"}[p.Verifying], p.Entries, config.Size(p.Bytes))
			}
		},
	})
	return result, err
}

// moveLock has the cluster forget where its HA lock was.
func (a *app) moveLock(ctx context.Context, path string) (result migrate.Result, err error) {
	c, err := config.Load(a.source(path))
	if err != nil {
		return result, err
	}
	if c.Storage.Type == "raft" {
		return result, errors.New(`storage "raft" has its own lock, which cannot be moved`)
	}
	store, err := stores.OpenEntries(ctx, c.Storage, physical.Host{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return result, fmt.Errorf("storage %q: %w", c.Storage.Type, err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return migrate.MoveLock(ctx, store, server.OwnLife()...)
}
