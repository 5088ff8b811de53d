package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "locum",
		Short: "High availability for any server",
		Long: `Locum makes any server highly available. Several nodes run; one holds a lock and is active, the others
are standby: they pass every request on to the active node. When it steps down or dies, another takes over.

Commands that ask a node take its address and the token from LOCUM_ADDR and LOCUM_TOKEN (or else VAULT_ADDR
and VAULT_TOKEN), or from -address and -token.`,
		Example: `  # A cluster of three nodes on this machine, to try things out
  locum dev

  # This node, its role, who is active
  locum status`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return withHint(fmt.Errorf("there is no command %q", "locum "+args[0]), "see what there is: locum help")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetUsageFunc(usage)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHint(fmt.Errorf("%s", singleDash(err.Error())), "see "+cmd.CommandPath()+" -help")
	})
	root.AddCommand(
		a.devCommand(), a.runCommand(), a.serverCommand(), a.statusCommand(), a.operatorCommand(), a.kvCommand(), a.cacheCommand(), a.tokenCommand(), a.policyCommand(),
		a.lockCommand(),
		a.versionCommand(), a.completionCommand(), a.manCommand(), a.configTopic(),
	)
	root.SetHelpCommand(helpCommand(root))
	root.InitDefaultHelpCmd()
	completeArguments(root)
	hintAtArguments(root)
	return root
}

// hintAtArguments adds to what cobra says of a command's arguments where to see what it takes.
func hintAtArguments(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var known *hinted
			if err == nil || errors.As(err, &known) {
				return err
			}
			return withHint(err, "see "+cmd.CommandPath()+" -help")
		}
	}
	for _, child := range cmd.Commands() {
		hintAtArguments(child)
	}
}

// group is a command that only holds others.
func group(use, short, example string, children ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return withHint(fmt.Errorf("there is no command %q", cmd.CommandPath()+" "+args[0]), "see what there is: "+cmd.CommandPath()+" -help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	g.AddCommand(children...)
	return g
}

// doubleDashes lets flags be written with one dash, as users of Vault and Consul do: -config becomes --config. What follows "--" is
// left alone.
func doubleDashes(args []string) []string {
	out := make([]string, len(args))
	copy(out, args)
	for i, arg := range out {
		if arg == "--" {
			break
		}
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' && letter(arg[1]) {
			out[i] = "-" + arg
		}
	}
	return out
}

func letter(b byte) bool { return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' }

// singleDash writes pflag's messages as this command line's flags are written.
func singleDash(text string) string { return strings.ReplaceAll(text, "--", "-") }

// usage is cobra's, with single dashes and the examples first.
func usage(cmd *cobra.Command) error {
	var b strings.Builder
	if cmd.Runnable() && !cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "Usage:\n  %s\n", cmd.UseLine())
	} else {
		fmt.Fprintf(&b, "Usage:\n  %s COMMAND\n", cmd.CommandPath())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
				fmt.Fprintf(&b, "  %-14s %s\n", c.Name(), c.Short)
			}
		}
	}
	if flags := flagLines(cmd.LocalFlags()); flags != "" {
		fmt.Fprintf(&b, "\nFlags:\n%s", flags)
	}
	_, err := fmt.Fprint(cmd.OutOrStdout(), b.String())
	return err
}

func flagLines(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, text := pflag.UnquoteUsage(f)
		name := "-" + f.Name
		if kind != "" {
			name += " " + kind
		}
		fmt.Fprintf(&b, "  %-30s %s\n", name, text+defaultOf(f))
	})
	return b.String()
}

// defaultOf says what a flag is if it is not given, unless that is nothing.
func defaultOf(f *pflag.Flag) string {
	if slices.Contains([]string{"", "false", "[]", "0", "0s"}, f.DefValue) {
		return ""
	}
	return fmt.Sprintf(" (default %s)", f.DefValue)
}
