package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) generateRootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "generate-root",
		Short: "Make a root token, by a quorum of key shares",
		Long: `Makes a new root token, for when the last one was revoked or lost. One person begins and keeps the one-time password; as many
holders of key shares as the threshold says give theirs, each with this command and nothing else; the last one gets the token, hidden. Who
has the one-time password decodes it. A change of the active node ends the attempt: begin anew.

Shares are asked for without echo, or read from stdin.`,
		Example: "  locum operator generate-root -init            # prints the one-time password\n  locum operator generate-root                  # each holder of a share\n" +
			"  locum operator generate-root -decode TOKEN    # asks for the one-time password\n  locum operator generate-root -status",
		Args: cobra.NoArgs,
	}
	begin := cmd.Flags().Bool("init", false, "begin an attempt")
	cancel := cmd.Flags().Bool("cancel", false, "end the attempt")
	status := cmd.Flags().Bool("status", false, "tell how far it is")
	decode := cmd.Flags().String("decode", "", "decode this hidden `token`")
	nonce := cmd.Flags().String("nonce", "", "the attempt's `nonce`, to be sure which it is; else whichever is under way")
	cmd.MarkFlagsMutuallyExclusive("init", "cancel", "status", "decode")
	format := formatFlag(cmd)
	conn := a.connectFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *decode != "" { // needs no node
			return a.decodeToken(*decode, *format)
		}
		c, err := a.connect(conn)
		if err != nil {
			return err
		}
		defer c.Close()
		ctx := cmd.Context()
		var g client.RootGeneration
		switch {
		case *begin:
			g, err = c.BeginRootGeneration(ctx, "")
		case *cancel:
			return c.CancelRootGeneration(ctx)
		case *status:
			g, err = c.RootGeneration(ctx)
		default:
			g, err = a.giveRootShare(ctx, c, *nonce)
		}
		if err != nil {
			return err
		}
		return a.show(*format, g, func(w io.Writer) { showRootGeneration(w, g) })
	}
	return cmd
}

func (a *app) decodeToken(encoded, format string) error {
	otp, err := a.secret("one-time password")
	if err != nil {
		return err
	}
	token, err := client.DecodeToken(encoded, otp)
	if err != nil {
		return err
	}
	return a.show(format, map[string]string{"token": string(token)}, func(w io.Writer) { pairs(w, "Token", string(token)) })
}

func (a *app) giveRootShare(ctx context.Context, c *client.Client, nonce string) (client.RootGeneration, error) {
	now, err := c.RootGeneration(ctx)
	switch {
	case err != nil:
		return now, err
	case !now.Started:
		return now, withHint(errors.New("no attempt is under way"), "begin one: locum operator generate-root -init")
	case nonce != "" && nonce != now.Nonce:
		return now, withHint(fmt.Errorf("the attempt under way is %s, not %s", now.Nonce, nonce), "ask who began it")
	}
	share, err := a.secret("unseal key")
	if err != nil {
		return now, err
	}
	return c.GiveRootShare(ctx, now.Nonce, share)
}

func showRootGeneration(w io.Writer, g client.RootGeneration) {
	pairs(w, "Nonce", g.Nonce, "Started", fmt.Sprint(g.Started), "Progress", fmt.Sprintf("%d of %d", g.Progress, g.Required), "Complete", fmt.Sprint(g.Complete))
	if g.OTP != "" {
		fmt.Fprintf(w, "\nOne-Time Password: %s\n\nKeep it: it decodes the token, and is shown this once. Now each holder of a share: locum operator generate-root\n", g.OTP)
	}
	if g.EncodedToken != "" {
		fmt.Fprintf(w, "\nEncoded Token: %s\n\nWho has the one-time password: locum operator generate-root -decode %s\n", g.EncodedToken, g.EncodedToken)
	}
}
