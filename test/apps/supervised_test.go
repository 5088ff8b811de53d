package apps

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	journal, err := os.OpenFile(os.Getenv("LOCUM_TEST_JOURNAL"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		err = http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.Method == http.MethodPost {
				fmt.Fprintln(journal, r.URL.Path) // one write: lines of several applications do not mix
			}
			fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
		}))
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

// supervised is a configuration block for an application that Locum runs, and that notes in a file which requests it carried out.
func supervised(standby, journal string) func(*cluster.Node) string {
	return func(n *cluster.Node) string {
		return fmt.Sprintf("application \"app\" {\n  command = [%q]\n  environment = { LOCUM_TEST_APPLICATION = \"%s:9000\", LOCUM_TEST_JOURNAL = %q }\n  upstream = \"http://%s:9000\"\n  listen = %q\n  standby = %q\n}\n",
			os.Args[0], n.IP, journal, n.IP, address(n), standby)
	}
}

// carriedOut reads what the application has noted, wherever it ran.
func carriedOut(t *testing.T, journal string) *counter {
	t.Helper()
	data, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{done: map[string]int{}}
	for path := range strings.Lines(string(data)) {
		c.done[strings.TrimSpace(path)]++
	}
	return c
}

// P5 and P2 together: a switchover stops the application on one node after its last answer, and starts it on another, and no request
// fails.
func TestSupervisedSwitchover(t *testing.T) {
	for _, standby := range []string{"cold", "warm"} {
		t.Run(standby, func(t *testing.T) {
			journal := filepath.Join(t.TempDir(), "journal")
			c := startCalm(t, supervised(standby, journal), answers)
			for range 3 {
				active := findActive(t, c)
				tr := drive(c.Nodes, 300)
				settle(t, 300*time.Millisecond)
				if err := c.StepDown(within(t, 20*time.Second), c.Nodes[0], "", 20*time.Second); err != nil {
					t.Error(err)
				}
				if _, err := c.WaitActive(within(t, 20*time.Second), active); err != nil {
					t.Error(err)
				}
				settle(t, 300*time.Millisecond)
				judge(t, tr.Stop(), carriedOut(t, journal), true)
			}
		})
	}
}
