package apps

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// TestMain lets the test binary be an application that takes 100 ms to start.
func TestMain(m *testing.M) {
	address := os.Getenv("LOCUM_TEST_APPLICATION")
	if address == "" {
		os.Exit(m.Run())
	}
	<-time.After(100 * time.Millisecond)
	err := http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
	}))
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

// supervised is a configuration block for an application that Locum runs.
func supervised(standby string) func(*cluster.Node) string {
	return func(n *cluster.Node) string {
		return fmt.Sprintf("application \"app\" {\n  command = [%q]\n  environment = { LOCUM_TEST_APPLICATION = \"%s:9000\" }\n  upstream = \"http://%s:9000\"\n  listen = %q\n  standby = %q\n}\n",
			os.Args[0], n.IP, n.IP, address(n), standby)
	}
}

// P5 and P2 together: a switchover stops the application on one node after its last answer, and starts it on another, and no request
// fails.
func TestSupervisedSwitchover(t *testing.T) {
	for _, standby := range []string{"cold", "warm"} {
		t.Run(standby, func(t *testing.T) {
			c := start(t, supervised(standby), answers)
			for range 3 {
				active, _ := c.Active(within(t, 10*time.Second))
				tr := drive(c.Nodes, 300)
				settle(t, 300*time.Millisecond)
				if err := c.StepDown(within(t, 20*time.Second), c.Nodes[0], "", 20*time.Second); err != nil {
					t.Error(err)
				}
				if _, err := c.WaitActive(within(t, 20*time.Second), active); err != nil {
					t.Error(err)
				}
				settle(t, 300*time.Millisecond)
				judge(t, tr.Stop(), nil, true)
			}
		})
	}
}
