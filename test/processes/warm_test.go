package processes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// Warm standby: the application runs on every node, is told its role by hooks and by the role file, and can refuse.
func TestWarm(t *testing.T) {
	c, dir := protected(t, func(n *cluster.Node, dir string) string {
		return fmt.Sprintf("  standby = \"warm\"\n  role_file = %q\n  on_active = [%q]\n", roleFile(dir, n), "test ! -e "+filepath.Join(dir, "refuse-"+n.Name))
	})
	running := map[string]bool{}
	err := cluster.Poll(within(t, 20*time.Second), "it runs on all nodes", func() error {
		for _, l := range lives(t, dir) {
			running[l.node] = true
		}
		if len(running) < 3 {
			return fmt.Errorf("it runs on %d", len(running))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := active(t, c)
	await(t, other(c, n), n)
	roles(t, c, dir, n)

	t.Log("one node refuses to be active")
	refusing := other(c, n)
	if err := os.WriteFile(filepath.Join(dir, "refuse-"+refusing.Name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(lives(t, dir))
	_ = c.StepDown(within(t, 30*time.Second), n, refusing.Name, 5*time.Second) // it names one that will refuse
	next := active(t, c, refusing)
	await(t, refusing, next)
	roles(t, c, dir, next)
	if next != n && len(lives(t, dir)) < before {
		t.Error("lives were lost")
	}

	t.Log("kill -9 of the active node: another one, which runs already, is told")
	started := len(lives(t, dir))
	killed := boot()
	next.Kill()
	third := active(t, c, next, refusing)
	await(t, refusing, third)
	gap := boot() - killed
	t.Logf("answers again %s after the kill", gap)
	if gap > atOnce {
		t.Errorf("gap %s, it was known at once", gap)
	}
	if now := len(lives(t, dir)); now != started {
		t.Errorf("%d instances were started for it", now-started)
	}
}

func roleFile(dir string, n *cluster.Node) string { return filepath.Join(dir, "role-"+n.Name) }

// roles: exactly the active node's file says so.
func roles(t *testing.T, c *cluster.Cluster, dir string, active *cluster.Node) {
	t.Helper()
	err := cluster.Poll(within(t, 10*time.Second), "the role files are right", func() error {
		for _, n := range c.Nodes {
			data, err := os.ReadFile(roleFile(dir, n))
			if err != nil {
				return err
			}
			if got := strings.Contains(string(data), "LOCUM_ROLE=active\n"); got != (n == active) {
				return fmt.Errorf("%s says\n%s", n.Name, data)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
