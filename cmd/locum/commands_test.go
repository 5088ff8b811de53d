package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// newApp is one whose output can be read, in an environment of its own.
func newApp(env ...string) (a *app, out, errs *bytes.Buffer) {
	vars := map[string]string{}
	for i := 0; i+1 < len(env); i += 2 {
		vars[env[i]] = env[i+1]
	}
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	lookup := func(name string) (string, bool) { value, ok := vars[name]; return value, ok }
	return &app{in: strings.NewReader(""), out: out, err: errs, env: lookup}, out, errs
}

// allCommands calls see with every command and its name below the root.
func allCommands(see func(name string, cmd *cobra.Command)) {
	a, _, _ := newApp()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		see(strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "locum"), " "), cmd)
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(a.root())
}

// Every command has a description and an example, and each line of an example is one that exists.
func TestEveryCommandIsDescribed(t *testing.T) {
	seen := 0
	allCommands(func(name string, cmd *cobra.Command) {
		seen++
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%q lacks a description or an example", name)
		}
		if !strings.Contains(cmd.Example, cmd.CommandPath()) && !cmd.IsAdditionalHelpTopicCommand() && cmd.HasParent() && !cmd.HasSubCommands() {
			t.Errorf("the example of %q is of another command", name)
		}
		cmd.LocalFlags() // fails where two flags have one name
	})
	if seen < 50 {
		t.Errorf("only %d commands", seen)
	}
	for _, args := range [][]string{nil, {"help"}, {"help", "kv", "get"}, {"kv"}, {"kv", "get", "-help"}} {
		a, out, _ := newApp()
		if code := a.run(context.Background(), args); code != 0 || out.Len() == 0 {
			t.Errorf("locum %s exits with %d and says %q", args, code, out)
		}
	}
	a, _, errs := newApp()
	if code := a.run(context.Background(), []string{"help", "kv", "nothing"}); code != 1 || !strings.Contains(errs.String(), "there is no command") {
		t.Errorf("help about nothing: %d %s", code, errs)
	}
}

// Every command that reads takes -format=json. The others say what they did in a line, and are listed here.
func TestEveryReadingCommandHasJSON(t *testing.T) {
	write := strings.Fields(`dev run server help man completion/bash completion/zsh completion/fish completion/powershell config
		cache/del kv/delete kv/undelete kv/destroy kv/metadata/put kv/metadata/patch kv/metadata/delete
		token/revoke policy/write policy/delete
		operator/seal operator/raft/remove-peer operator/raft/recover operator/raft/snapshot/save operator/raft/snapshot/restore`)
	silent := map[string]bool{}
	for _, name := range write {
		silent[strings.ReplaceAll(name, "/", " ")] = true
	}
	allCommands(func(name string, cmd *cobra.Command) {
		if cmd.HasSubCommands() || silent[name] {
			delete(silent, name)
			return
		}
		flag := cmd.Flags().Lookup("format")
		if flag == nil || flag.DefValue != "table" {
			t.Errorf("%q has no -format", name)
			return
		}
		if err := cmd.Flags().Set("format", "yaml"); err != nil || cmd.PreRunE == nil || cmd.PreRunE(cmd, nil) == nil {
			t.Errorf("%q takes a format that there is not", name)
		}
	})
	for name := range silent {
		t.Errorf("%q is listed as a command without -format, and is not there", name)
	}
}

// The pages are complete, and roff has nothing to complain about where it is at hand.
func TestManPages(t *testing.T) {
	a, _, _ := newApp()
	pages, err := manPages(a.root())
	if err != nil {
		t.Fatal(err)
	}
	allCommands(func(name string, cmd *cobra.Command) {
		page := pages["man1/"+manName(cmd)+".1"]
		if cmd.IsAdditionalHelpTopicCommand() || cmd.Hidden {
			return
		}
		for _, part := range []string{".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES"} {
			if !strings.Contains(page, part) {
				t.Errorf("the page of %q has no %s", name, part)
			}
		}
	})
	if page := pages["man5/locum.hcl.5"]; !strings.Contains(page, "retry_join") {
		t.Error("the page of the configuration lacks its settings")
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		return // the rest needs it
	}
	var all strings.Builder
	for _, page := range pages {
		all.WriteString(page)
	}
	cmd := exec.Command(groff, "-man", "-Tutf8", "-Kutf8", "-ww", "-rLL=200n", "-z")
	cmd.Stdin = strings.NewReader(all.String())
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Run(); err != nil || complaints.Len() > 0 {
		t.Errorf("groff: %v\n%s", err, complaints.String())
	}
}

func TestManWritesFiles(t *testing.T) {
	dir := t.TempDir()
	a, _, errs := newApp()
	if code := a.run(context.Background(), []string{"man", dir}); code != 0 {
		t.Fatal(errs)
	}
	for _, name := range []string{"/man1/locum.1", "/man1/locum-operator-raft-join.1", "/man5/locum.hcl.5"} {
		if info, err := os.Stat(dir + name); err != nil || info.Size() < 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text := escaped(".x 'y'\n\\-a"); text != "\\&.x \\(aqy\\(aq\n\\e\\-a" {
		t.Errorf("%q", text)
	}
}

// Colours and progress are for people: on a terminal, unless they do not want them (no-color.org).
func TestColoursAndProgressOnlyOnATerminal(t *testing.T) {
	for _, c := range []struct {
		terminal           bool
		env                []string
		painted, progressd bool
	}{
		{true, nil, true, true},
		{false, nil, false, false},
		{true, []string{"NO_COLOR", "1"}, false, true},
		{true, []string{"NO_COLOR", ""}, true, true},
		{true, []string{"TERM", "dumb"}, false, false},
	} {
		a, _, errs := newApp(c.env...)
		a.terminal = func(io.Writer) bool { return c.terminal }
		if code := a.run(context.Background(), []string{"nosuch"}); code != 1 {
			t.Errorf("exit %d", code)
		}
		if got := strings.Contains(errs.String(), "\x1b["); got != c.painted {
			t.Errorf("%+v: %q", c, errs)
		}
		errs.Reset()
		progress := a.progress()
		progress("working")
		progress("")
		if got := strings.Contains(errs.String(), "working"); got != c.progressd {
			t.Errorf("%+v: progress %q", c, errs)
		}
	}
	a, out, _ := newApp()
	if a.isTerminal(out) {
		t.Error("a buffer is no terminal")
	}
}

// A configuration is checked as the server would read it, with the address that its data store knows.
func TestValidateAsksTheStore(t *testing.T) {
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/agent/self" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"Config":{"NodeName":"host"},"Member":{"Addr":"192.0.2.17"}}`)
	}))
	defer agent.Close()
	file := filepath.Join(t.TempDir(), "locum.hcl")
	text := fmt.Sprintf("listener \"tcp\" {\n  tls_disable = true\n  address = \"0.0.0.0:8400\"\n}\nstorage \"consul\" {\n  address = %q\n}\n", agent.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, out, errs := newApp()
	if code := a.run(context.Background(), []string{"operator", "validate", file}); code != 0 || !strings.Contains(out.String(), "http://192.0.2.17:8400 (the Consul agent") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}
