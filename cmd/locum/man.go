package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/locum-ha/locum/internal/config"
)

func (a *app) manCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Writes the manual pages into a directory: one for each command in section 1, and the configuration file's in section 5.
The directory is made if it is not there.`,
		Example: "  locum man /usr/local/share/man\n  locum man ./man && man ./man/man1/locum-kv-get.1",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pages, err := manPages(cmd.Root())
		if err != nil {
			return err
		}
		for name, text := range pages {
			name = filepath.Join(args[0], name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return fmt.Errorf("writing manual pages: %w", err)
			}
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				return fmt.Errorf("writing manual pages: %w", err)
			}
		}
		a.say("%d pages in %s.", len(pages), args[0])
		return nil
	}
	return cmd
}

// manPages makes all pages, by their file below the directory.
func manPages(root *cobra.Command) (map[string]string, error) {
	pages := map[string]string{}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.IsAdditionalHelpTopicCommand() {
			return
		}
		pages["man1/"+manName(cmd)+".1"] = manPage(cmd)
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(root)
	settings, err := config.Manual()
	if err != nil {
		return nil, err
	}
	page := newRoff("locum.hcl", 5, "the configuration file of Locum")
	page.section("DESCRIPTION")
	page.text("The configuration of a node, in HCL or as the same in JSON. Durations and sizes are strings with a unit.")
	page.section("SETTINGS")
	for _, s := range settings {
		page.item(s.Path, s.Doc)
	}
	page.section("SEE ALSO")
	page.text("locum-server(1), locum-operator-validate(1)")
	pages["man5/locum.hcl.5"] = page.String()
	return pages, nil
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func manPage(cmd *cobra.Command) string {
	page := newRoff(manName(cmd), 1, cmd.Short)
	page.section("SYNOPSIS")
	if cmd.HasAvailableSubCommands() {
		page.text(cmd.CommandPath() + " COMMAND")
	} else {
		page.text(cmd.UseLine())
	}
	page.section("DESCRIPTION")
	if cmd.Long != "" {
		page.literal(cmd.Long)
	} else {
		page.text(cmd.Short + ".")
	}
	see := []string{}
	if parent := cmd.Parent(); parent != nil {
		see = append(see, manName(parent)+"(1)")
	}
	if cmd.HasAvailableSubCommands() {
		page.section("COMMANDS")
		for _, child := range cmd.Commands() {
			if child.IsAvailableCommand() {
				page.item(child.Name(), child.Short)
				see = append(see, manName(child)+"(1)")
			}
		}
	}
	if flags := cmd.LocalFlags(); flags.HasAvailableFlags() {
		page.section("OPTIONS")
		flags.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				kind, text := pflag.UnquoteUsage(f)
				page.item(strings.TrimSpace("-"+f.Name+" "+kind), text+defaultOf(f))
			}
		})
	}
	if cmd.HasExample() {
		page.section("EXAMPLES")
		page.literal(cmd.Example)
	}
	if !cmd.HasParent() {
		page.section("EXIT STATUS")
		page.text("0: as asked. 1: an error. 2: the node is sealed (locum status), or there are warnings (locum operator diagnose).")
		see = append(see, "locum.hcl(5)")
	}
	page.section("SEE ALSO")
	page.text(strings.Join(see, ", "))
	return page.String()
}

// roff writes a manual page.
type roff struct{ strings.Builder }

func newRoff(name string, section int, short string) *roff {
	p := &roff{}
	fmt.Fprintf(p, ".TH %s %d \"\" %s Locum\n", quoted(strings.ToUpper(name)), section, quoted("Locum "+version))
	p.section("NAME")
	fmt.Fprintf(p, "%s \\- %s\n", escaped(name), escaped(short))
	return p
}

func (p *roff) section(name string) { fmt.Fprintf(p, ".SH %s\n", name) }

func (p *roff) text(text string) { fmt.Fprintln(p, escaped(text)) }

// item is a term and what it means.
func (p *roff) item(term, text string) {
	fmt.Fprintf(p, ".TP\n\\fB%s\\fR\n%s\n", escaped(term), escaped(text))
}

// literal keeps lines as they are.
func (p *roff) literal(text string) {
	fmt.Fprintf(p, ".nf\n%s\n.fi\n", escaped(strings.Trim(text, "\n")))
}

// escaped lets nothing of a text be taken for a command of roff.
func escaped(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.ReplaceAll(line, `\`, `\e`)
		line = strings.NewReplacer("-", `\-`, "'", `\(aq`, "`", `\(ga`, "…", "...", "—", `\(em`, "’", `\(aq`).Replace(line)
		if strings.HasPrefix(line, ".") {
			line = `\&` + line
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

func quoted(text string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\e`), `"`, `\(dq`) + `"`
}
