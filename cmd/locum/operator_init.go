package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

// initOutput is what init prints as JSON, named as in Vault.
type initOutput struct {
	UnsealKeysB64   []string `json:"unseal_keys_b64"`
	UnsealKeysHex   []string `json:"unseal_keys_hex"`
	UnsealShares    int      `json:"unseal_shares"`
	UnsealThreshold int      `json:"unseal_threshold"`
	RecoveryKeysB64 []string `json:"recovery_keys_b64"`
	RecoveryKeysHex []string `json:"recovery_keys_hex"`
	RecoveryShares  int      `json:"recovery_keys_shares"`
	RecoveryThresh  int      `json:"recovery_keys_threshold"`
	RootToken       string   `json:"root_token"`
}

func (a *app) initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new cluster, on its first node",
		Long: `Makes a new cluster of which the node that is asked is the first, and prints its secrets: once, never again.

With a "shamir" seal the root key is divided into shares, of which a threshold opens a node. With a "static" seal
there are none: the nodes open by themselves.`,
		Example: "  locum operator init -key-shares 5 -key-threshold 3\n  locum operator init -key-shares 1 -key-threshold 1 -format=json > secrets.json",
		Args:    cobra.NoArgs,
	}
	var req client.InitRequest
	cmd.Flags().IntVar(&req.Shares, "key-shares", 5, "`number` of shares of the root key (shamir)")
	cmd.Flags().IntVar(&req.Threshold, "key-threshold", 3, "`number` of shares that open a node (shamir)")
	cmd.Flags().IntVar(&req.RecoveryShares, "recovery-shares", 0, "not supported yet, and refused")
	cmd.Flags().IntVar(&req.RecoveryThreshold, "recovery-threshold", 0, "not supported yet, and refused")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		status, err := c.SealStatus(cmd.Context())
		if err != nil {
			return err
		}
		if req, err = fitting(cmd, req, status.Type); err != nil {
			return err
		}
		answer, err := c.Init(cmd.Context(), req)
		if err != nil {
			return err
		}
		out := initOutput{
			UnsealKeysB64: answer.KeysBase64, UnsealKeysHex: answer.Keys, UnsealShares: req.Shares, UnsealThreshold: req.Threshold,
			RecoveryKeysB64: answer.RecoveryKeysB64, RecoveryKeysHex: answer.RecoveryKeys,
			RecoveryShares: req.RecoveryShares, RecoveryThresh: req.RecoveryThreshold, RootToken: answer.RootToken,
		}
		return a.show(*format, out, out.table)
	})
}

// fitting leaves out what does not go with the node's seal.
func fitting(cmd *cobra.Command, req client.InitRequest, seal string) (client.InitRequest, error) {
	changed := func(names ...string) bool {
		for _, name := range names {
			if cmd.Flags().Changed(name) {
				return true
			}
		}
		return false
	}
	if changed("recovery-shares", "recovery-threshold") {
		return req, withHint(errors.New("recovery shares are not supported yet"), "leave -recovery-shares and -recovery-threshold out")
	}
	if seal == "shamir" {
		return req, nil
	}
	if changed("key-shares", "key-threshold") {
		return req, withHint(fmt.Errorf("a %s seal opens by itself: its root key has no shares", seal), "leave -key-shares and -key-threshold out")
	}
	req.Shares, req.Threshold = 0, 0
	return req, nil
}

func (o initOutput) table(w io.Writer) {
	for i, key := range o.UnsealKeysB64 {
		fmt.Fprintf(w, "Unseal Key %d: %s\n", i+1, key)
	}
	for i, key := range o.RecoveryKeysB64 {
		fmt.Fprintf(w, "Recovery Key %d: %s\n", i+1, key)
	}
	if len(o.UnsealKeysB64)+len(o.RecoveryKeysB64) > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "Initial Root Token: %s\n\n", o.RootToken)
	if len(o.UnsealKeysB64) > 0 {
		fmt.Fprintf(w, "Every node is opened with %d of these %d keys: locum operator unseal. Give each key to another person.\n",
			o.UnsealThreshold, o.UnsealShares)
	}
	fmt.Fprintln(w, "Nothing of this is shown again: keep it now, in a safe place.")
}
