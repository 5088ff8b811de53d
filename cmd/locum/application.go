package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/internal/config"
)

// applicationFlags are what run and dev can be told of the command that they protect.
type applicationFlags struct {
	name     string
	upstream string
	health   string
	warm     bool
}

func (f *applicationFlags) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "the application's `name`; else the command's")
	cmd.Flags().StringVar(&f.upstream, "upstream", "", "`URL` where the command answers: http://, h2c://, https://, unix:///… or tcp://; else http:// at the port in PORT")
	cmd.Flags().StringVar(&f.health, "health", "", "`path` to ask by HTTP whether it works; else whether it accepts connections")
	cmd.Flags().BoolVar(&f.warm, "warm", false, "run it on every node, and tell it its role; else on the active node only")
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// application makes the block that the command line stands for.
func (f *applicationFlags) application(command []string) config.Application {
	name := f.name
	if name == "" {
		name = strings.TrimLeft(notInNames.ReplaceAllString(filepath.Base(command[0]), "-"), "._-")
	}
	if name == "" {
		name = "application"
	}
	a := config.NewApplication(name)
	a.Command, a.Upstream, a.Health.Path = command, f.upstream, f.health
	if f.warm {
		a.Standby = "warm"
	}
	return a
}

// commandAfterDashes takes what stands behind "--".
func commandAfterDashes(cmd *cobra.Command, args []string) ([]string, error) {
	at := cmd.ArgsLenAtDash()
	switch {
	case at < 0 && len(args) > 0:
		return nil, withHint(fmt.Errorf("%q: a command to protect stands behind --", args[0]), "write "+cmd.CommandPath()+" -- "+strings.Join(args, " "))
	case at > 0:
		return nil, withHint(fmt.Errorf("%q is not an argument of %s", args[0], cmd.CommandPath()), "write the command to protect behind --")
	case at == 0 && len(args) == 0:
		return nil, withHint(errors.New("no command behind --"), "write such as "+cmd.CommandPath()+" -- ./server")
	}
	return args, nil
}

// quoteHCL writes a string as HCL has it: what looks like a template is none.
func quoteHCL(text string) string {
	quoted := fmt.Sprintf("%q", text)
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(quoted)
}

// applicationHCL writes the block for a node's file: only what a command line can say.
func applicationHCL(a config.Application) string {
	var b strings.Builder
	words := make([]string, len(a.Command))
	for i, word := range a.Command {
		words[i] = quoteHCL(word)
	}
	fmt.Fprintf(&b, "\napplication %s {\n  command = [%s]\n  standby = %q\n", quoteHCL(a.Name), strings.Join(words, ", "), a.Standby)
	if a.Upstream != "" {
		fmt.Fprintf(&b, "  upstream = %s\n", quoteHCL(a.Upstream))
	}
	for _, address := range a.Listen {
		fmt.Fprintf(&b, "  listen = %s\n", quoteHCL(address))
	}
	if a.Health.Path != "" {
		fmt.Fprintf(&b, "  health {\n    path = %s\n  }\n", quoteHCL(a.Health.Path))
	}
	if a.WorkingDir != "" {
		fmt.Fprintf(&b, "  working_dir = %s\n", quoteHCL(a.WorkingDir))
	}
	b.WriteString("}\n")
	return b.String()
}
