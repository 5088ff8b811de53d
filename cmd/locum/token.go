package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) tokenCommand() *cobra.Command {
	g := group("token", "Tokens: who may do what, and for how long", "  locum token create -policy app -ttl 1h\n  locum token lookup",
		a.tokenCreateCommand(), a.tokenLookupCommand(), a.tokenRenewCommand(), a.tokenRevokeCommand(), a.tokenCapabilitiesCommand())
	g.Long = `Makes, describes, renews and ends tokens. Where a command takes a token, "-" has it asked for without echo, or read from
stdin: as an argument it would stand in the shell's history and in the list of processes. Without one, the commands that
read are about the token in use.`
	return g
}

// tokenFlag adds -accessor; what it returns names the token that the arguments are about.
func (a *app) tokenFlag(cmd *cobra.Command) func(args []string) (client.TokenID, error) {
	accessor := cmd.Flags().String("accessor", "", "`accessor` of the token, which names it without giving its power")
	return func(args []string) (client.TokenID, error) {
		switch {
		case *accessor != "" && len(args) > 0:
			return client.TokenID{}, errors.New("a token and its accessor: one of them is enough")
		case *accessor != "":
			return client.TokenID{Accessor: *accessor}, nil
		case len(args) == 0:
			return client.TokenID{}, nil
		case args[0] == "-":
			token, err := a.secret("token")
			return client.TokenID{Token: token}, err
		}
		a.warn("other users of this machine can see a token in the arguments; prefer \"-\", or -accessor")
		token, err := nonEmpty("token", args[0])
		return client.TokenID{Token: token}, err
	}
}

func (a *app) tokenCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token",
		Long: `Makes a token, a child of the one in use: it ends with that one at the latest, unless it is an orphan. It has the policies
that are given, or those of its parent.`,
		Example: `  locum token create -policy app -ttl 1h
  locum token create -policy backup -period 24h -orphan -format=json
  LOCUM_TOKEN=$(locum token create -policy app -field token) locum kv get app/db`,
		Args: cobra.NoArgs,
	}
	var req client.TokenRequest
	f := cmd.Flags()
	f.StringArrayVar(&req.Policies, "policy", nil, "`name` of a policy; may be repeated")
	f.StringVar(&req.TTL, "ttl", "", "how `long` it lives, such as 1h; renewed, it lives on")
	f.StringVar(&req.ExplicitMaxTTL, "explicit-max-ttl", "", "how `long` it lives at most, however often it is renewed")
	f.StringVar(&req.Period, "period", "", "how `long` each renewal lets it live, for ever")
	f.IntVar(&req.NumUses, "use-limit", 0, "`number` of requests that it is good for; 0: any")
	f.StringVar(&req.DisplayName, "display-name", "", "`name` for people")
	renewable := f.Bool("renewable", true, "whether it can be renewed")
	f.BoolVar(&req.Orphan, "orphan", false, "it does not end with the token in use")
	f.BoolVar(&req.NoDefaultPolicy, "no-default-policy", false, "without the policy \"default\"")
	meta := f.StringArray("metadata", nil, "`KEY=VALUE` to remember with it; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("policy", a.completing(policyNames, 1, 0))
	field := fieldFlag(cmd)
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var err error
		if req.Meta, err = keyValues("metadata", *meta); err != nil {
			return err
		}
		if f.Changed("renewable") {
			req.Renewable = renewable
		}
		made, err := c.Tokens().Create(cmd.Context(), req)
		if err != nil {
			return err
		}
		return a.showAuth(*format, *field, made)
	})
}

// authOutput shows the token's secret, which client.TokenAuth does not.
type authOutput struct {
	client.TokenAuth
	ClientToken string `json:"client_token"`
}

func (a *app) showAuth(format, field string, auth client.TokenAuth) error {
	for _, warning := range auth.Warnings {
		a.warn("%s", warning)
	}
	names := map[string]any{
		"token": string(auth.ClientToken), "token_accessor": auth.Accessor, "token_duration": lasts(auth.LeaseDuration),
		"token_renewable": auth.Renewable, "token_policies": auth.Policies, "policies": auth.Policies, "orphan": auth.Orphan,
		"num_uses": auth.NumUses,
	}
	if field != "" {
		return a.showField(names, field)
	}
	return a.show(format, map[string]any{"auth": authOutput{auth, string(auth.ClientToken)}, "warnings": auth.Warnings}, func(w io.Writer) {
		pairs(w, "token", string(auth.ClientToken), "token_accessor", auth.Accessor, "token_duration", lasts(auth.LeaseDuration),
			"token_renewable", strconv.FormatBool(auth.Renewable), "token_policies", strings.Join(auth.Policies, ", "),
			"orphan", strconv.FormatBool(auth.Orphan), "num_uses", positive(uint64(max(0, auth.NumUses))))
		for _, key := range slices.Sorted(maps.Keys(auth.Metadata)) {
			fmt.Fprintf(w, "token_meta_%s\t%s\n", key, auth.Metadata[key])
		}
	})
}

// lasts prints seconds as a duration; 0 is for ever.
func lasts(seconds int64) string {
	if seconds == 0 {
		return "∞"
	}
	return (time.Duration(seconds) * time.Second).String()
}

func (a *app) tokenLookupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "lookup [TOKEN]",
		Short:   "Describe a token: the one in use, or another",
		Example: "  locum token lookup\n  locum token lookup - < token.txt\n  locum token lookup -accessor 8609694a-cdbc-db9b-d345-e782dbb562ed",
		Args:    cobra.MaximumNArgs(1),
	}
	which := a.tokenFlag(cmd)
	field := fieldFlag(cmd)
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		id, err := which(args)
		if err != nil {
			return err
		}
		info, err := c.Tokens().Lookup(cmd.Context(), id)
		if err != nil {
			return err
		}
		shown := struct {
			client.TokenInfo
			ID string `json:"id"`
		}{info, string(info.ID)}
		if *field != "" {
			return a.showField(shown, *field)
		}
		return a.show(*format, map[string]any{"data": shown}, func(w io.Writer) { tokenTable(w, info) })
	})
}

func tokenTable(w io.Writer, t client.TokenInfo) {
	expires := "never"
	if t.ExpireTime != nil {
		expires = t.ExpireTime.Format(time.RFC3339)
	}
	period := ""
	if t.Period > 0 {
		period = lasts(t.Period)
	}
	pairs(w, "accessor", t.Accessor, "creation_time", time.Unix(t.CreationTime, 0).UTC().Format(time.RFC3339),
		"creation_ttl", lasts(t.CreationTTL), "display_name", t.DisplayName, "expire_time", expires,
		"explicit_max_ttl", lasts(t.ExplicitMaxTTL), "id", string(t.ID), "num_uses", strconv.Itoa(t.NumUses),
		"orphan", strconv.FormatBool(t.Orphan), "path", t.Path, "period", period, "policies", strings.Join(t.Policies, ", "),
		"renewable", strconv.FormatBool(t.Renewable), "ttl", lasts(t.TTL), "type", t.Type)
	for _, key := range slices.Sorted(maps.Keys(t.Meta)) {
		fmt.Fprintf(w, "meta_%s\t%s\n", key, t.Meta[key])
	}
}

func (a *app) tokenRenewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "renew [TOKEN]",
		Short:   "Let a token live on",
		Example: "  locum token renew\n  locum token renew -increment 1h -accessor 8609694a-cdbc-db9b-d345-e782dbb562ed",
		Args:    cobra.MaximumNArgs(1),
	}
	which := a.tokenFlag(cmd)
	increment := cmd.Flags().Duration("increment", 0, "how `long` from now on; its own TTL if not given")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		id, err := which(args)
		if err != nil {
			return err
		}
		renewed, err := c.Tokens().Renew(cmd.Context(), id, *increment)
		if err != nil {
			return err
		}
		return a.showAuth(*format, "", renewed)
	})
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revoke TOKEN",
		Short:   "End a token and all its children",
		Example: "  locum token revoke -\n  locum token revoke -accessor 8609694a-cdbc-db9b-d345-e782dbb562ed\n  locum token revoke -self",
		Args:    cobra.MaximumNArgs(1),
	}
	which := a.tokenFlag(cmd)
	self := cmd.Flags().Bool("self", false, "the token in use")
	mode := cmd.Flags().String("mode", "", "`orphan`: its children live on, as orphans")
	complete(cmd, "mode", "orphan")
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		id, err := which(args)
		switch {
		case err != nil:
			return err
		case *self && id != (client.TokenID{}):
			return errors.New("-self and another token: one of them")
		case !*self && id == (client.TokenID{}):
			return withHint(errors.New("no token"), `write "-" to be asked for it, -accessor, or -self for the token in use`)
		case *mode != "" && *mode != "orphan":
			return withHint(fmt.Errorf("mode %q is not known", *mode), "write -mode=orphan, or leave it out")
		case *mode == "orphan" && id.Token == "":
			return withHint(errors.New("-mode=orphan needs the token itself"), `write "-" to be asked for it`)
		case *mode == "orphan":
			err = c.Tokens().RevokeOrphan(cmd.Context(), id.Token)
		default:
			err = c.Tokens().Revoke(cmd.Context(), id)
		}
		if err != nil {
			return err
		}
		a.say("The token is revoked.")
		return nil
	})
}

func (a *app) tokenCapabilitiesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "capabilities [TOKEN] PATH",
		Short:   "What a token may do at a path of the API",
		Example: "  locum token capabilities secret/data/app/db\n  locum token capabilities -accessor 8609694a-cdbc-db9b-d345-e782dbb562ed sys/step-down",
		Args:    cobra.RangeArgs(1, 2),
	}
	which := a.tokenFlag(cmd)
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		id, err := which(args[:len(args)-1])
		if err != nil {
			return err
		}
		can, err := c.Tokens().Capabilities(cmd.Context(), id, strings.TrimPrefix(args[len(args)-1], "/"))
		if err != nil {
			return err
		}
		return a.show(*format, can, func(w io.Writer) { fmt.Fprintln(w, strings.Join(can, ", ")) })
	})
}
