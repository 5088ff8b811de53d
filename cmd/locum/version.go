package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "This program's version",
		Example: "  locum version\n  locum version -format=json",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		about := map[string]string{"version": version, "build_date": buildDate, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
		return a.show(*format, about, func(w io.Writer) {
			fmt.Fprintf(w, "Locum %s, built %s with %s for %s/%s\n", version, buildDate, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		})
	}
	return cmd
}
