package apps

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

const (
	oldVersion = "v0.0.1"
	newVersion = "v0.0.2"
)

// Issue 5, point 7: "a documented and tested rolling restart and upgrade of all nodes with 0 failed requests; … the version of each node
// shown, and leadership not lost to an older version by accident". The way of docs/operations.md: one node after the other, the active
// one last. Then, with one node back at the old version, a crash and a step-down, which both leave the choice between old and new; the
// old one has the higher priority, and is not chosen.
func TestRollingUpgrade(t *testing.T) {
	for _, version := range []string{oldVersion, newVersion} {
		if _, err := cluster.BinaryOf(version); err != nil {
			t.Fatal(err)
		}
	}
	preferred := []int{200, 100, 100} // the first node: the one that is active at first, and goes back
	u := &upgrading{t: t, journal: filepath.Join(t.TempDir(), "journal")}
	u.Cluster = startOf(t, cluster.Options{Version: oldVersion, Performance: calm, Extra: func(n *cluster.Node) string {
		return fmt.Sprintf("ha {\n  priority = %d\n}\n", preferred[n.Index]) + supervised("cold", u.journal)(n)
	}}, answers)
	for _, n := range u.Nodes {
		u.began = append(u.began, launch{n.Name, oldVersion, time.Time{}})
	}
	u.shows(oldVersion, oldVersion, oldVersion)

	active := findActive(t, u.Cluster)
	for _, n := range append(u.without(active), active) {
		tr := drive(u.without(n), 300)
		settle(t, 200*time.Millisecond)
		u.replace(n, newVersion)
		judge(t, tr.Stop(), carriedOut(t, u.journal), true)
	}
	u.shows(newVersion, newVersion, newVersion)

	active = findActive(t, u.Cluster)
	old, other := u.without(active)[0], u.without(active)[1]
	u.replace(old, oldVersion)
	versions := []string{newVersion, newVersion, newVersion}
	versions[old.Index] = oldVersion
	u.shows(versions...)
	settle(t, time.Second) // the active node, which is killed next, tells the others who is a candidate

	tr := drive(u.without(active), 300)
	settle(t, 200*time.Millisecond)
	active.Kill()
	u.leads(other, active)
	settle(t, 200*time.Millisecond)
	judge(t, tr.Stop(), carriedOut(t, u.journal), false)

	u.replace(active, newVersion)
	u.shows(versions...)
	tr = drive(u.Nodes, 300)
	settle(t, 200*time.Millisecond)
	if err := u.StepDown(within(t, 20*time.Second), old, "", 20*time.Second); err != nil {
		t.Error(err)
	}
	u.leads(active, other)
	settle(t, 200*time.Millisecond)
	judge(t, tr.Stop(), carriedOut(t, u.journal), true)
	u.neverBack()
}

// upgrading is a cluster whose nodes' versions change.
type upgrading struct {
	*cluster.Cluster
	t       *testing.T
	journal string
	began   []launch
}

// launch is the start of one node.
type launch struct {
	node, version string
	at            time.Time
}

func (u *upgrading) without(n *cluster.Node) []*cluster.Node {
	return slices.DeleteFunc(slices.Clone(u.Nodes), func(o *cluster.Node) bool { return o == n })
}

// replace is what an operator does to upgrade a node, or to take it back: stop it, if it runs, put the other binary in place, start it,
// wait for 200 on /v1/sys/ready.
func (u *upgrading) replace(n *cluster.Node, version string) {
	u.t.Helper()
	if n.Running() {
		if err := n.Stop(30 * time.Second); err != nil {
			u.t.Error(err)
		}
	}
	n.Version = version
	u.began = append(u.began, launch{n.Name, version, time.Now()})
	if err := n.Start(); err != nil {
		u.t.Fatal(err)
	}
	ctx := within(u.t, 20*time.Second)
	if err := cluster.Poll(ctx, n.Name+" is ready", func() error { return u.Call(ctx, n, http.MethodGet, "/v1/sys/ready", nil, nil) }); err != nil {
		u.t.Fatal(err)
	}
}

// shows waits until "locum operator members" has all nodes, with these versions.
func (u *upgrading) shows(versions ...string) {
	u.t.Helper()
	binary, err := cluster.BinaryOf(newVersion)
	if err != nil {
		u.t.Fatal(err)
	}
	ctx := within(u.t, 20*time.Second)
	if err := cluster.Poll(ctx, fmt.Sprintf("members are of %v", versions), func() error {
		cmd := exec.CommandContext(ctx, binary, "operator", "members", "-address", u.Nodes[0].URL())
		cmd.Env = append(cmd.Environ(), "LOCUM_TOKEN="+u.Token)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, n := range u.Nodes {
			if !slices.ContainsFunc(slices.Collect(strings.Lines(string(out))), func(line string) bool {
				fields := strings.Fields(line)
				return len(fields) > 0 && fields[0] == n.Name && slices.Contains(fields, versions[n.Index])
			}) {
				return errors.New(string(out))
			}
		}
		return nil
	}); err != nil {
		u.t.Fatal(err)
	}
}

// leads waits until a node other than the last one is active, and wants it to be this one.
func (u *upgrading) leads(want, last *cluster.Node) {
	u.t.Helper()
	active, err := u.WaitActive(within(u.t, 20*time.Second), last)
	if err != nil {
		u.t.Fatal(err)
	}
	if active != want {
		u.t.Errorf("%s of %s took over, and not %s of %s", active.Name, active.Version, want.Name, want.Version)
	}
}

// neverBack fails the test if leadership went from a node of the new version to one of the old, however shortly: there was a candidate of
// the new version all the time.
func (u *upgrading) neverBack() {
	u.t.Helper()
	var history struct {
		Leaderships []struct {
			Term   uint64
			Node   string
			From   time.Time
			Reason string
		}
	}
	if err := u.Call(within(u.t, 10*time.Second), u.Nodes[0], http.MethodGet, "/v1/sys/history", nil, &history); err != nil {
		u.t.Fatal(err)
	}
	slices.Reverse(history.Leaderships) // the newest came first
	before := ""
	for _, l := range history.Leaderships {
		version := ""
		for _, s := range u.began {
			if s.node == l.Node && s.at.Before(l.From) {
				version = s.version
			}
		}
		u.t.Logf("term %d: %s of %s, until %q", l.Term, l.Node, version, l.Reason)
		if before == newVersion && version != newVersion {
			u.t.Errorf("in term %d leadership went back to %s, of %s", l.Term, l.Node, version)
		}
		before = version
	}
	if before != newVersion {
		u.t.Errorf("the last leadership of %d is by %q", len(history.Leaderships), before)
	}
}
