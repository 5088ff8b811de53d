package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/internal/config"
)

func (a *app) recoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover -config FILE [-peer ID=HOST:PORT…]",
		Short: "Make a quorum again when it is lost for good (offline)",
		Long: `For when so many servers are lost for good that the rest can never form a quorum again. It works on the data directory of a
node that does not run, and writes the servers that the cluster is to have from now on into it: this node alone unless
-peer is given. The term is not lowered. Run it on one surviving node, or with the same -peer list on each; what the lost
servers had acknowledged alone may be lost with them. Then start the node, and let new ones join.`,
		Example: "  locum operator raft recover -config /etc/locum/locum.hcl\n  locum operator raft recover -config locum.hcl -peer 5b1f…=10.0.0.1:8401 -peer 77ac…=10.0.0.2:8401",
		Args:    cobra.NoArgs,
	}
	paths := cmd.Flags().StringArray("config", nil, "`file` or directory of the node's configuration; may be repeated")
	list := cmd.Flags().StringArray("peer", nil, "`ID=HOST:PORT` of a server that the cluster is to have; may be repeated")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(*cobra.Command, []string) error {
		if len(*paths) == 0 {
			return withHint(errors.New("no configuration"), "name the one of the node whose data is to be recovered: -config FILE")
		}
		c, err := config.Load(config.Source{Paths: *paths, LookupEnv: a.env})
		if err != nil {
			return err
		}
		if c.Storage.Type != "raft" {
			return fmt.Errorf("the storage is %q: only raft storage is recovered so", c.Storage.Type)
		}
		peers, err := parsePeers(*list)
		if err != nil {
			return err
		}
		if !*yes {
			return withHint(fmt.Errorf("this rewrites the members in %s", c.Storage.Raft.Path), "end the node, and write -yes if you are sure")
		}
		written, err := recoverRaft(c, peers)
		if err != nil {
			return err
		}
		a.say("The cluster's servers are now: %s", strings.Join(written, ", "))
		return nil
	}
	return cmd
}

// peer is a server named on the command line.
type peer struct{ id, address string }

func parsePeers(list []string) ([]peer, error) {
	var peers []peer
	for _, text := range list {
		id, address, ok := strings.Cut(text, "=")
		if !ok || id == "" || !strings.Contains(address, ":") {
			return nil, withHint(fmt.Errorf("peer %q is not ID=HOST:PORT", text), "the ids stood in: locum operator raft list-peers")
		}
		peers = append(peers, peer{id, address})
	}
	return peers, nil
}

// recoverRaft writes the servers, and returns them as they are written.
func recoverRaft(*config.Config, []peer) ([]string, error) {
	return nil, errors.New("this build cannot recover raft storage")
}
