package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/internal/config"
)

func (a *app) validateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate FILE|DIR…",
		Short: "Check a configuration without starting",
		Long: `Checks a configuration as "locum server" would read it, environment and named files included, without starting. All
faults are reported, each with its file and line and with what to write instead.`,
		Example: "  locum operator validate /etc/locum/locum.hcl\n  locum operator validate -config /etc/locum",
	}
	paths := cmd.Flags().StringArray("config", nil, "`file` or directory; may be repeated")
	format := formatFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		source := a.source(append(*paths, args...)...)
		if len(source.Paths) == 0 {
			return withHint(errors.New("nothing to check"), "name a file: locum operator validate FILE")
		}
		c, err := config.Load(source)
		var faults config.Faults
		switch {
		case errors.As(err, &faults) && *format == "json":
			if err := a.show("json", map[string]any{"valid": false, "faults": faults}, nil); err != nil {
				return err
			}
			return exitCode(1)
		case err != nil:
			return err
		}
		for _, warning := range c.Warnings {
			a.warn("%s", warning)
		}
		result := map[string]any{"valid": true, "warnings": c.Warnings, "node_name": c.NodeName, "storage": c.Storage.Type,
			"api_addr": c.APIAddr, "cluster_addr": c.ClusterAddr}
		return a.show(*format, result, func(w io.Writer) {
			_, _ = io.WriteString(w, "The configuration is valid.\n\n")
			pairs(w, "Node", c.NodeName, "Storage", c.Storage.Type, "Seal", c.Seal.Type,
				"Api Address", because(c.APIAddr, c.APIAddrFrom), "Cluster Address", because(c.ClusterAddr, c.ClusterAddrFrom))
		})
	}
	return cmd
}

func because(value, from string) string {
	if value == "" || from == "" {
		return value
	}
	return value + " (" + from + ")"
}
