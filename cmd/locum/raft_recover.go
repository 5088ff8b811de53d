package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical/raft"
)

func (a *app) recoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover -config FILE -yes",
		Short: "Go on with this node alone when a quorum is lost for good (offline)",
		Long: `For when so many servers are lost for good that the rest can never form a quorum again. It works on the data directory of a
node that does not run, and makes that node the cluster's only server. Everything in its log counts as committed; the term
goes on about a million higher, above all that the lost servers may have given. So:

  1. End all nodes that are left. Choose the one with the most recent data.
  2. Run this there, then start that node.
  3. Empty the data directories of the others, and start them: they join anew.

What only the lost servers had is lost with them. If they ever come back with their old data, empty them first.`,
		Example: "  locum operator raft recover -config /etc/locum/locum.hcl -yes",
		Args:    cobra.NoArgs,
	}
	paths := cmd.Flags().StringArray("config", nil, "`file` or directory of the node's configuration; may be repeated")
	yes := cmd.Flags().Bool("yes", false, "I have read what it does")
	cmd.RunE = func(*cobra.Command, []string) error {
		if len(*paths) == 0 {
			return withHint(errors.New("no configuration"), "name the one of the node whose data is to be recovered: -config FILE")
		}
		c, err := config.Load(a.source(*paths...))
		switch {
		case err != nil:
			return err
		case c.Storage.Type != "raft":
			return withHint(fmt.Errorf("the storage is %q: only raft storage is recovered so", c.Storage.Type),
				"with another data store, restore that one as its own documentation says: the nodes keep nothing of their own")
		case !*yes:
			return withHint(fmt.Errorf("this makes the node the only server of the cluster, for good (%s)", c.Storage.Raft.Path),
				"read locum operator raft recover -help, end the node, and write -yes")
		}
		id, err := recoverRaft(c)
		if err != nil {
			return err
		}
		a.say("Server %s at %s is now the only one of the cluster. Start it, then let the others join anew.", id, c.ClusterAddr)
		return nil
	}
	return cmd
}

// recoverRaft makes the node of this configuration the only server, and returns its identity.
func recoverRaft(c *config.Config) (id string, err error) {
	path := c.Storage.Raft.Path
	if entries, err := os.ReadDir(path); err != nil || len(entries) == 0 {
		return "", withHint(errors.Join(fmt.Errorf("there is no data of a node in %s", path), err),
			"give the configuration, and run it as the user, of a node that was in the cluster; one without data is started, and joins")
	}
	address, err := cluster.HostPort(c.ClusterAddr)
	if err != nil {
		return "", err
	}
	store, err := raft.Open(raft.Config{Path: path})
	if err != nil {
		return "", err
	}
	id = store.ID()
	if err := store.Close(); err != nil {
		return "", err
	}
	return id, raft.Recover(path, []raft.Peer{{ID: id, Addr: address, Voter: true}})
}
