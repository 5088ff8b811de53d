package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) policyCommand() *cobra.Command {
	g := group("policy", "Policies: what tokens may do", "  locum policy write app app.hcl\n  locum policy read app",
		a.policyReadCommand(), a.policyWriteCommand(), a.policyListCommand(), a.policyDeleteCommand())
	g.Long = `Reads and writes policies: rules in HCL or JSON that say which paths of the API a token may use, and how.

  path "secret/data/app/*" {
    capabilities = ["create", "read", "update", "delete"]
  }
`
	return g
}

// policyNames completes them.
func policyNames(ctx context.Context, c *client.Client, _ string) ([]string, error) {
	return c.Policies().List(ctx)
}

// asksPolicy makes a command whose first argument is a policy's name.
func (a *app) asksPolicy(cmd *cobra.Command, run func(*cobra.Command, *client.Client, []string) error) *cobra.Command {
	cmd = a.asking(cmd, run)
	cmd.ValidArgsFunction = a.completing(policyNames, 1, 0)
	return cmd
}

func (a *app) policyReadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "read NAME",
		Short:   "A policy's rules",
		Example: "  locum policy read default\n  locum policy read app > app.hcl",
		Args:    cobra.ExactArgs(1),
	}
	format := formatFlag(cmd)
	return a.asksPolicy(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		text, err := c.Policies().Read(cmd.Context(), args[0])
		if isNotFound(err) {
			return withHint(fmt.Errorf("there is no policy %q", args[0]), "see which there are: locum policy list")
		}
		if err != nil {
			return err
		}
		if *format == "json" {
			return a.show(*format, map[string]string{"name": args[0], "policy": text}, nil)
		}
		_, err = fmt.Fprintln(a.out, text) // as it is, without the columns of a table
		return err
	})
}

func (a *app) policyWriteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "write NAME FILE",
		Short:   "Make or replace a policy",
		Long:    `Makes or replaces a policy by the rules in a file, HCL or JSON; "-" is stdin.`,
		Example: "  locum policy write app app.hcl\n  locum policy write app - < app.hcl",
		Args:    cobra.ExactArgs(2),
	}
	cmd = a.asksPolicy(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		text, err := a.readRules(args[1])
		if err != nil {
			return err
		}
		if err := c.Policies().Write(cmd.Context(), args[0], text); err != nil {
			return err
		}
		a.say("Policy %s is written.", args[0])
		return nil
	})
	existing := cmd.ValidArgsFunction
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return nil, cobra.ShellCompDirectiveDefault // a file
		}
		return existing(cmd, args, typed)
	}
	return cmd
}

// maxRules bounds what is read as a policy: more than the API takes.
const maxRules = 16 << 20

func (a *app) readRules(name string) (string, error) {
	from := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("reading the policy: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxRules))
	if err != nil {
		return "", fmt.Errorf("reading the policy: %w", err)
	}
	return string(text), nil
}

func (a *app) policyListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "The names of the policies",
		Example: "  locum policy list\n  locum policy list -format=json",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		names, err := c.Policies().List(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*format, names, func(w io.Writer) {
			for _, name := range names {
				fmt.Fprintln(w, name)
			}
		})
	})
}

func (a *app) policyDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Remove a policy",
		Long:    `Removes a policy. Tokens that have it live on, and can do no more what it allowed.`,
		Example: "  locum policy delete app",
		Args:    cobra.ExactArgs(1),
	}
	return a.asksPolicy(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := c.Policies().Delete(cmd.Context(), args[0]); err != nil {
			return err
		}
		a.say("Policy %s is gone.", args[0])
		return nil
	})
}
