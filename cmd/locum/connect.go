package main

import (
	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

// connection is the flags of a command that asks a node.
type connection struct {
	address, token, caCert, clientCert, clientKey, serverName string
	skipVerify, noForward                                     bool
}

// connectFlags adds them to a command.
func (a *app) connectFlags(cmd *cobra.Command) *connection {
	c := &connection{}
	f := cmd.Flags()
	f.StringVar(&c.address, "address", "", "`URL` of a node, or unix:///path of its socket; else LOCUM_ADDR, VAULT_ADDR, or "+client.DefaultAddress)
	f.StringVar(&c.token, "token", "", "`token`; better LOCUM_TOKEN or VAULT_TOKEN, which other users cannot see")
	f.StringVar(&c.caCert, "ca-cert", "", "PEM `file` of authorities to verify the node with; else LOCUM_CACERT")
	f.StringVar(&c.clientCert, "client-cert", "", "PEM `file` of a certificate to show; else LOCUM_CLIENT_CERT")
	f.StringVar(&c.clientKey, "client-key", "", "PEM `file` of its key; else LOCUM_CLIENT_KEY")
	f.StringVar(&c.serverName, "tls-server-name", "", "`name` to expect in the node's certificate; else LOCUM_TLS_SERVER_NAME")
	f.BoolVar(&c.skipVerify, "tls-skip-verify", false, "do not verify the node's certificate; anyone in between gets the token")
	f.BoolVar(&c.noForward, "no-forward", false, "ask a standby to redirect instead of forwarding")
	return c
}

// connect makes the client that flags and environment ask for.
func (a *app) connect(c *connection) (*client.Client, error) {
	cfg := client.FromEnv(a.env)
	override := func(into *string, value string) {
		if value != "" {
			*into = value
		}
	}
	override(&cfg.Address, c.address)
	override((*string)(&cfg.Token), c.token)
	override(&cfg.CACert, c.caCert)
	override(&cfg.ClientCert, c.clientCert)
	override(&cfg.ClientKey, c.clientKey)
	override(&cfg.ServerName, c.serverName)
	cfg.SkipVerify = cfg.SkipVerify || c.skipVerify
	cfg.NoForward = c.noForward
	if cfg.SkipVerify {
		a.warn("the node's certificate is not verified")
	}
	return client.New(cfg)
}

// asking makes a command that asks a node: it gets a client that is closed after it.
func (a *app) asking(cmd *cobra.Command, run func(*cobra.Command, *client.Client, []string) error) *cobra.Command {
	conn := a.connectFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(conn)
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd, c, args)
	}
	return cmd
}
