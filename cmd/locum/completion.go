package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

// completionWait bounds what a shell waits for a node's answer.
const completionWait = 2 * time.Second

func (a *app) completionCommand() *cobra.Command {
	shell := func(name, where string, write func(*cobra.Command, io.Writer) error) *cobra.Command {
		return &cobra.Command{
			Use:               name,
			Short:             "Completion for " + name,
			Example:           where,
			Args:              cobra.NoArgs,
			ValidArgsFunction: cobra.NoFileCompletions,
			RunE:              func(cmd *cobra.Command, _ []string) error { return write(cmd.Root(), a.out) },
		}
	}
	g := group("completion", "Completion of commands, flags, paths and names in your shell", "  source <(locum completion bash)",
		shell("bash", "  source <(locum completion bash)\n  locum completion bash > /etc/bash_completion.d/locum",
			func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) }),
		shell("zsh", "  source <(locum completion zsh)\n  locum completion zsh > \"${fpath[1]}/_locum\"",
			func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) }),
		shell("fish", "  locum completion fish | source\n  locum completion fish > ~/.config/fish/completions/locum.fish",
			func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) }),
		shell("powershell", "  locum completion powershell | Out-String | Invoke-Expression",
			func(root *cobra.Command, w io.Writer) error { return root.GenPowerShellCompletionWithDesc(w) }))
	g.Long = `Prints a script for your shell, with which the Tab key completes commands and flags, and what a node knows: the paths of
entries, the names of policies and nodes. The node and the token are those of the environment.`
	return g
}

// complete gives the values of a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	// It fails for a flag that is not there alone, which every test of a command shows.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// names asks a node for what could stand where something was typed.
type names func(ctx context.Context, c *client.Client, typed string) ([]string, error)

// completing makes a completion of the first so many arguments. A node that does not answer in time completes nothing.
func (a *app) completing(list names, arguments int, more cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		conn := &connection{}
		for flag, into := range map[string]*string{"address": &conn.address, "token": &conn.token, "ca-cert": &conn.caCert,
			"client-cert": &conn.clientCert, "client-key": &conn.clientKey, "tls-server-name": &conn.serverName} {
			*into, _ = cmd.Flags().GetString(flag)
		}
		conn.skipVerify, _ = cmd.Flags().GetBool("tls-skip-verify")
		quiet := *a
		quiet.err = io.Discard
		c, err := quiet.connect(conn)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
		defer cancel()
		found, err := list(ctx, c, typed)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fitting []string
		for _, name := range found {
			if strings.HasPrefix(name, typed) {
				fitting = append(fitting, name)
			}
		}
		if len(fitting) == 1 && !strings.HasSuffix(fitting[0], "/") {
			more &^= cobra.ShellCompDirectiveNoSpace // it is whole
		}
		return fitting, more | cobra.ShellCompDirectiveNoFileComp
	}
}

// completeArguments lets commands that take no files offer none.
func completeArguments(cmd *cobra.Command) {
	files := map[string]bool{"save": true, "restore": true, "validate": true, "man": true}
	if cmd.ValidArgsFunction == nil && !cmd.HasSubCommands() && !files[cmd.Name()] {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, child := range cmd.Commands() {
		completeArguments(child)
	}
}

// isCompletion reports whether a shell asks.
func isCompletion(args []string) bool {
	return len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd)
}

// singleDashes writes the flags of a completion as they were begun: with one dash, unless two were typed.
type singleDashes struct{ w io.Writer }

func (s singleDashes) Write(p []byte) (int, error) {
	lines := strings.SplitAfter(string(p), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "--") {
			lines[i] = line[1:]
		}
	}
	if _, err := fmt.Fprint(s.w, strings.Join(lines, "")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// helpCommand is cobra's, with an example.
func helpCommand(root *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Help about a command",
		Example: "  locum help kv get\n  locum help config",
		ValidArgsFunction: func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			about, _, err := root.Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var found []string
			for _, child := range about.Commands() {
				if (child.IsAvailableCommand() || child.IsAdditionalHelpTopicCommand()) && strings.HasPrefix(child.Name(), typed) {
					found = append(found, cobra.CompletionWithDesc(child.Name(), child.Short))
				}
			}
			return found, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		about, rest, err := root.Find(args)
		if err != nil || len(rest) > 0 && !about.Runnable() || about.HasSubCommands() && len(rest) > 0 {
			return withHint(fmt.Errorf("there is no command %q", "locum "+strings.Join(args, " ")), "see what there is: locum help")
		}
		about.InitDefaultHelpFlag()
		return about.Help()
	}
	return cmd
}
