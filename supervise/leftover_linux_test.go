package supervise

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Where node, guardian and init are killed in one instant, only a PID namespace ends the tree. What a cgroup still holds then is ended when
// the next guardian starts, and what a living guardian holds is left alone.
func TestAllKilled(t *testing.T) {
	for _, containment := range containments(t) {
		if containment == ContainGroup {
			continue // a warning at start says so
		}
		n := startNode(t, containment, time.Minute, 0)
		alive := newMarker()
		if _, err := start(t, guardian(t), Command{Args: []string{"sleep", alive}, Containment: containment}); err != nil {
			t.Fatal(err)
		}
		inits, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", n.guardian, n.guardian))
		init, err := strconv.Atoi(strings.TrimSpace(string(inits)))
		if err != nil {
			t.Fatalf("the guardian's children: %q", inits)
		}
		all := []int{n.cmd.Process.Pid, n.guardian, init}
		for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range all {
				if err := syscall.Kill(pid, sig); err != nil {
					t.Fatal(err)
				}
			}
		}
		if containment == ContainCgroup {
			guardian(t)
		}
		await(t, containment+": the tree's end", 10*time.Second, func() bool { return len(marked(n.marker)) == 0 })
		if len(marked(alive)) != 1 {
			t.Errorf("%s: what a living guardian holds was ended, too", containment)
		}
	}
}
