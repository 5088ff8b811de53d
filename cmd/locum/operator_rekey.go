package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) rekeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Replace the key shares, by a quorum of those in use",
		Long: `Replaces the shares of the root key with new ones, in two rounds, each share with a call of this command: first holders give the
shares in use, and with the last one the new shares are printed, once; then new shares are given back (-verify), and only then they are in force.
Whatever fails on the way, the shares in use stay. A change of the active node ends the attempt: begin anew.

Shares are asked for without echo, or read from stdin.`,
		Example: "  locum operator rekey -init -key-shares 5 -key-threshold 3\n  locum operator rekey             # each holder of a share in use\n" +
			"  locum operator rekey -verify     # holders of new shares\n  locum operator rekey -status",
		Args: cobra.NoArgs,
	}
	begin := cmd.Flags().Bool("init", false, "begin")
	shares := cmd.Flags().Int("key-shares", 5, "`number` of new shares")
	threshold := cmd.Flags().Int("key-threshold", 3, "`number` of them that open a node")
	cancel := cmd.Flags().Bool("cancel", false, "end the attempt; the shares in use stay")
	status := cmd.Flags().Bool("status", false, "tell how far it is")
	verify := cmd.Flags().Bool("verify", false, "give a new share back")
	cmd.MarkFlagsMutuallyExclusive("init", "cancel", "status", "verify")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		ctx := cmd.Context()
		var r client.Rekey
		var err error
		switch {
		case *verify:
			return a.verifyRekey(ctx, c, *format)
		case *cancel:
			return c.CancelRekey(ctx)
		case *begin:
			r, err = c.BeginRekey(ctx, *shares, *threshold)
		case *status:
			r, err = c.Rekey(ctx)
		default:
			r, err = a.giveRekeyShare(ctx, c)
		}
		if err != nil {
			return err
		}
		return a.show(*format, r, func(w io.Writer) { showRekey(w, r) })
	})
}

func (a *app) giveRekeyShare(ctx context.Context, c *client.Client) (client.Rekey, error) {
	now, err := c.Rekey(ctx)
	switch {
	case err != nil:
		return now, err
	case !now.Started:
		return now, withHint(errors.New("no attempt is under way"), "begin one: locum operator rekey -init -key-shares 5 -key-threshold 3")
	case now.VerificationNonce != "":
		return now, withHint(errors.New("the new shares were handed out already"), "give them back: locum operator rekey -verify")
	}
	share, err := a.secret("unseal key in use")
	if err != nil {
		return now, err
	}
	return c.GiveRekeyShare(ctx, now.Nonce, share)
}

func (a *app) verifyRekey(ctx context.Context, c *client.Client, format string) error {
	now, err := c.RekeyVerification(ctx)
	if err != nil {
		return err
	}
	if !now.Started {
		return withHint(errors.New("no new shares wait to be given back"), "see how far it is: locum operator rekey -status")
	}
	share, err := a.secret("new unseal key")
	if err != nil {
		return err
	}
	v, err := c.VerifyRekey(ctx, now.Nonce, share)
	if err != nil {
		return err
	}
	return a.show(format, v, func(w io.Writer) {
		if v.Complete {
			fmt.Fprintln(w, "The new shares are in force; the old ones open nothing any more.")
			return
		}
		pairs(w, "Nonce", v.Nonce, "Given Back", fmt.Sprintf("%d of %d", v.Progress, v.Threshold))
	})
}

func showRekey(w io.Writer, r client.Rekey) {
	if !r.Complete {
		pairs(w, "Nonce", r.Nonce, "Started", fmt.Sprint(r.Started), "Progress", fmt.Sprintf("%d of %d", r.Progress, r.Required),
			"New Shares", fmt.Sprint(r.Shares), "New Threshold", fmt.Sprint(r.Threshold), "To Be Given Back", fmt.Sprint(r.VerificationNonce != ""))
		return
	}
	for i, key := range r.KeysBase64 {
		fmt.Fprintf(w, "New Unseal Key %d: %s\n", i+1, key)
	}
	fmt.Fprintln(w, "\nThey are shown this once, and not in force yet: give them back with locum operator rekey -verify.")
}
