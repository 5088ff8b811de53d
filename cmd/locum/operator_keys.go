package main

import (
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) rotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rotate",
		Short:   "Make a new encryption key for what is written from now on",
		Example: "  locum operator rotate",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		if err := c.Rotate(cmd.Context()); err != nil {
			return err
		}
		return a.keyStatus(cmd, c, *format)
	})
}

func (a *app) keyStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key-status",
		Short:   "The encryption key in use",
		Example: "  locum operator key-status",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return a.keyStatus(cmd, c, *format)
	})
}

func (a *app) keyStatus(cmd *cobra.Command, c *client.Client, format string) error {
	status, err := c.KeyStatus(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(format, status, func(w io.Writer) {
		pairs(w, "Key Term", strconv.FormatUint(status.Term, 10), "Install Time", status.InstallTime.Format(time.RFC3339),
			"Encryptions", strconv.FormatUint(status.Encryptions, 10))
	})
}
