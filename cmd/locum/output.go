package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// formats are the values of -format.
var formats = []string{"table", "json"}

// formatFlag adds -format to a command that reads.
func formatFlag(cmd *cobra.Command) *string {
	format := cmd.Flags().String("format", "table", "`FORMAT` to print in: table or json")
	inner := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, *format) {
			return withHint(fmt.Errorf("format %q is not known", *format), "write -format=table or -format=json")
		}
		if inner != nil {
			return inner(cmd, args)
		}
		return nil
	}
	return format
}

// show prints v as JSON or by the function that makes the table.
func (a *app) show(format string, v any, table func(io.Writer)) error {
	if format != "json" {
		w := tabwriter.NewWriter(a.out, 0, 0, 4, ' ', 0)
		table(w)
		return w.Flush()
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", data)
	return err
}

// rows prints columns, under a head unless that is empty.
func rows(w io.Writer, head []string, lines ...[]string) {
	if len(head) > 0 {
		under := make([]string, len(head))
		for i, h := range head {
			under[i] = strings.Repeat("-", len(h))
		}
		fmt.Fprintln(w, strings.Join(head, "\t"))
		fmt.Fprintln(w, strings.Join(under, "\t"))
	}
	for _, line := range lines {
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
}

// pairs prints keys with values, leaving out the empty ones.
func pairs(w io.Writer, kv ...string) {
	rows(w, []string{"Key", "Value"})
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", kv[i], kv[i+1])
		}
	}
}

// say prints one line about what was done.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.out, format+"\n", args...) }

// warn prints one line to stderr.
func (a *app) warn(format string, args ...any) { fmt.Fprintf(a.err, "warning: "+format+"\n", args...) }
