package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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
	complete(cmd, "format", formats...)
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

// fieldFlag adds -field to a command whose answer is an object.
func fieldFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("field", "", "print the value of this `key` alone")
}

// showField prints one field of v as it is named in JSON.
func (a *app) showField(v any, name string) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	value, ok := fields[name]
	if !ok {
		return withHint(fmt.Errorf("there is no field %q", name), "there are: "+strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
	}
	_, err = fmt.Fprintln(a.out, plain(value))
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
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "%s "+format+"\n", append([]any{a.paint(a.err, yellow, "warning:")}, args...)...)
}
