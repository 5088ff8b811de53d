package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

// sealedCode is the exit code of status for a node that is sealed.
const sealedCode = exitCode(2)

// nodeStatus is what status prints as JSON: Vault's fields, side by side.
type nodeStatus struct {
	client.SealStatus
	*client.Leader
}

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "This node, its role, and who is active",
		Long: `Shows the node that is asked, whatever its state.

The exit code is 0 if the node is unsealed, 2 if it is sealed or not initialised, 1 on an error.`,
		Example: "  locum status\n  locum status -address http://127.0.0.1:8410 -format=json",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		seal, err := c.SealStatus(cmd.Context())
		if err != nil {
			return err
		}
		status := nodeStatus{SealStatus: seal}
		if !seal.Sealed {
			leader, err := c.Leader(cmd.Context())
			if err != nil {
				return err
			}
			status.Leader = &leader
		}
		if err := a.show(*format, status, status.table); err != nil {
			return err
		}
		if seal.Sealed {
			return sealedCode
		}
		return nil
	})
}

func (s nodeStatus) table(w io.Writer) {
	seal := s.SealStatus
	progress := ""
	if seal.Sealed && seal.Initialized && seal.Shares > 0 {
		progress = fmt.Sprintf("%d/%d", seal.Progress, seal.Threshold)
	}
	pairs(w,
		"Seal Type", seal.Type,
		"Initialized", strconv.FormatBool(seal.Initialized),
		"Sealed", strconv.FormatBool(seal.Sealed),
		"Total Shares", positive(uint64(max(0, seal.Shares))),
		"Threshold", positive(uint64(max(0, seal.Threshold))),
		"Unseal Progress", progress,
		"Unseal Nonce", seal.Nonce,
		"Version", seal.Version,
		"Storage Type", seal.StorageType,
		"Cluster Name", seal.ClusterName,
		"Cluster ID", seal.ClusterID,
	)
	for _, warning := range seal.Warnings {
		fmt.Fprintf(w, "Warning\t%s\n", warning)
	}
	if s.Leader == nil {
		return
	}
	l := *s.Leader
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", key, value)
		}
	}
	line("HA Enabled", strconv.FormatBool(l.HAEnabled))
	if !l.HAEnabled {
		return
	}
	if l.IsSelf {
		line("HA Mode", "active")
		line("Active Since", l.ActiveTime.Format(time.RFC3339Nano))
	} else {
		line("HA Mode", "standby")
		line("Active Node", l.LeaderNode)
		line("Active Node Address", orNone(l.LeaderAddress))
	}
	line("HA Cluster", orNone(l.LeaderClusterAddr))
	line("Term", positive(l.Term))
	line("Raft Committed Index", positive(l.RaftCommittedIndex))
	line("Raft Applied Index", positive(l.RaftAppliedIndex))
}

// positive prints a number, and nothing for 0.
func positive(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func orNone(text string) string {
	if text == "" {
		return "<none>"
	}
	return text
}
