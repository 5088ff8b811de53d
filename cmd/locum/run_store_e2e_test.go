package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/storeserver"
)

// Issue 5: "locum run -- ./server on three machines (on two, with an external store) makes a server … highly available": two nodes, told of
// the store by LOCUM_STORAGE, one of which is killed.
func TestRunOnTwoMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs two processes and etcd")
	}
	tmp, app := t.TempDir(), runAppBinary(t)
	storage := "LOCUM_STORAGE=etcd endpoints=http://" + storeserver.StartEtcd(t).Addr
	base := freePorts(t)
	first := startRunWith(t, []string{storage}, filepath.Join(tmp, "one"), base, "--", app)
	line := first.wait(t, `^  LOCUM_JOIN=(\S+) locum run (.*)$`)
	if said := first.wait(t, `^with the same LOCUM_STORAGE in its environment as here`); strings.Contains(line[0]+said[0], "endpoints") {
		t.Errorf("the line for others repeats the store's settings: %s", line[0])
	}
	second := startRunWith(t, []string{storage, joinVariable + "=" + line[1]}, filepath.Join(tmp, "two"), base+10, "--", app)
	for _, r := range []*runProcess{first, second} {
		if got := answers(t, r.app, "/"); got != "one" {
			t.Errorf("answer %q", got)
		}
	}
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // killed
	if got := answers(t, second.app, "/"); got != "two" {
		t.Errorf("after the crash: %q", got)
	}
	// Back with the same start as before, and able to take over again.
	again := startRunWith(t, []string{storage}, filepath.Join(tmp, "one"), base, "--", app)
	if got := answers(t, again.app, "/"); got != "two" {
		t.Errorf("the node that came back: %q", got)
	}
	if code := second.end(t); code != 5 {
		t.Errorf("exit code %d, want the command's, 5", code)
	}
	if got := answers(t, again.app, "/"); got != "one" {
		t.Errorf("after the hand-over: %q", got)
	}
}
