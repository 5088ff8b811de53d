package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/internal/config"
)

// configTopic is "locum help config": every setting, from the comments of the fields themselves.
func (a *app) configTopic() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Every setting of the configuration file (locum help config)", Example: "  locum help config"}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		entries, err := config.Manual()
		if err != nil {
			a.report(err)
			return
		}
		out := cmd.OutOrStdout()
		fmt.Fprintln(out, "The configuration file is HCL, or the same as JSON. Durations and sizes are strings with a unit.")
		for _, e := range entries {
			fmt.Fprintf(out, "\n%s\n%s\n", e.Path, wrap(e.Doc, 100, "    "))
		}
	})
	return cmd
}

// wrap breaks text into lines.
func wrap(text string, width int, indent string) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && line != indent {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line)
	return b.String()
}
