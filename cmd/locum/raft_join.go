package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) joinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join LEADER_API_ADDR",
		Short: "Let the node that is asked join a cluster",
		Long: `Lets the node that is asked, which must not be initialised, join the cluster of another node, which need not be the
active one. The node proves that it holds the root key: with a static seal by itself, else once it is unsealed.`,
		Example: "  locum operator raft join -address http://c.example.com:8400 http://a.example.com:8400",
		Args:    cobra.ExactArgs(1),
	}
	var req client.JoinRequest
	f := cmd.Flags()
	caCert := f.String("leader-ca-cert", "", "PEM `file` of authorities to verify that node with")
	clientCert := f.String("leader-client-cert", "", "PEM `file` of a certificate to show to it")
	clientKey := f.String("leader-client-key", "", "PEM `file` of its key")
	f.StringVar(&req.ServerName, "leader-tls-servername", "", "`name` to expect in its certificate")
	f.BoolVar(&req.Retry, "retry", false, "go on trying until it succeeds")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		req.LeaderAPIAddr = args[0]
		var key string
		for _, given := range []struct {
			file string
			into *string
		}{{*caCert, &req.CACert}, {*clientCert, &req.ClientCert}, {*clientKey, &key}} {
			if given.file == "" {
				continue
			}
			data, err := os.ReadFile(given.file)
			if err != nil {
				return fmt.Errorf("reading what to join with: %w", err)
			}
			*given.into = string(data)
		}
		req.ClientKey = client.Secret(key)
		joined, err := c.Raft().Join(cmd.Context(), req)
		if err != nil {
			return err
		}
		return a.show(*format, map[string]bool{"joined": joined}, func(w io.Writer) {
			pairs(w, "Joined", fmt.Sprint(joined))
		})
	})
}
