package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// introduce says what there is and what to try: each a line to copy.
func (a *app) introduce(c *devCluster) {
	active := c.nodes[0]
	var lines [][]string
	for _, n := range c.nodes {
		role := "standby"
		if n.isActive() {
			role, active = "active", n
		}
		lines = append(lines, []string{n.name, n.url(), strconv.FormatInt(n.pid.Load(), 10), role, n.log()})
	}
	a.say("")
	w := tabwriter.NewWriter(a.out, 0, 0, 4, ' ', 0)
	rows(w, []string{"Node", "Address", "PID", "Role", "Log"}, lines...)
	_ = w.Flush() // like every print here: without stdout there is nobody to tell
	a.say("\nActive: %s at %s", active.name, active.url())
	a.say("Token:  %s   (also in %s)", string(c.token), c.tokenFile())

	writer, reader := active, active
	for _, n := range c.nodes { // through one standby, from another
		if n != active {
			writer, reader = reader, n
		}
	}
	if len(c.nodes) == 2 {
		writer = reader
		reader = active
	}
	self := ownName()
	at := func(n *devNode) string {
		return fmt.Sprintf("LOCUM_ADDR=%s LOCUM_TOKEN=%s %s", n.url(), string(c.token), self)
	}
	if active.app != "" {
		a.introduceApplication(c, active)
		return
	}
	a.say("\nThree things to try, in another terminal:\n")
	a.say("  1. Write through %s, read from %s:", writer.describe(active), reader.describe(active))
	a.say("     %s kv put greeting text=hello && %s kv get greeting\n", at(writer), at(reader))
	a.say("  2. Kill the active node, and see another take over:")
	a.say("     kill -9 %d\n", active.pid.Load())
	a.say("  3. Let the active node step down, and see that no request fails:")
	a.say("     %s operator step-down -wait 30s\n", at(writer))
	a.goodbye(c)
}

func (a *app) goodbye(c *devCluster) {
	a.say("Ctrl-C ends all of it%s. From here on, each change of leadership:\n", map[bool]string{true: " and leaves nothing behind", false: ", and keeps " + c.dir}[c.temporary])
}

// introduceApplication is introduce's second half for a cluster that protects a command.
func (a *app) introduceApplication(c *devCluster, active *devNode) {
	standby := active
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.app)
		if n != active {
			standby = n
		}
	}
	a.say("\nThe application runs on %s, and answers on every node: %s", active.name, strings.Join(all, ", "))
	a.say("\nThree things to try, in another terminal:\n")
	if up := c.options.application.upstream; strings.HasPrefix(up, "tcp:") {
		a.say("  1. Reach it through %s:", standby.describe(active))
		a.say("     nc %s\n", strings.Replace(standby.app, ":", " ", 1))
	} else {
		a.say("  1. Reach it through %s:", standby.describe(active))
		a.say("     curl -i http://%s/\n", standby.app)
	}
	a.say("  2. Kill the node that it runs on, and see another one take over with it:")
	a.say("     kill -9 %d\n", active.pid.Load())
	a.say("  3. Let it move as planned, and see that no request fails:")
	a.say("     LOCUM_ADDR=%s LOCUM_TOKEN=%s %s operator step-down -wait 30s\n", standby.url(), string(c.token), ownName())
	a.goodbye(c)
}

func (n *devNode) describe(active *devNode) string {
	if n == active {
		return n.name + " (active)"
	}
	return n.name + " (standby)"
}

func (n *devNode) isActive() bool {
	c, err := n.client("")
	if err != nil {
		return false
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	leader, err := c.Leader(ctx)
	return err == nil && leader.IsSelf
}

// ownName is how this program is called from the directory that it was called from.
func ownName() string {
	exe, err := os.Executable()
	if err != nil {
		return "locum"
	}
	if underGoRun(exe) {
		if exists(filepath.Join("cmd", "locum", "main.go")) {
			return "go run ./cmd/locum"
		}
		return exe
	}
	if found, err := exec.LookPath("locum"); err == nil && sameFile(found, exe) {
		return "locum"
	}
	return exe
}

func sameFile(a, b string) bool {
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// underGoRun reports whether this program was built by "go run", into a directory of its own.
func underGoRun(exe string) bool {
	return strings.Contains(exe, string(filepath.Separator)+"go-build")
}

// orphanWatch returns a function that reports whether the "go run" that started this program has gone. It does not pass a
// SIGTERM on, and nothing may be left behind.
func orphanWatch() func() bool {
	exe, err := os.Executable()
	if err != nil || !underGoRun(exe) {
		return func() bool { return false }
	}
	parent := os.Getppid()
	return func() bool { return os.Getppid() != parent }
}
