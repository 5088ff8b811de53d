package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Issue 5, point 9: "the command ended before the lock can be lost": here by a node that grants the lock and then answers no renewal any more,
// with a command that ignores SIGTERM, and by one that says that the lock is lost.
func TestLockThatIsNotRenewed(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary")
	}
	for name, status := range map[string]int{"no answer that helps": http.StatusServiceUnavailable, "lost": http.StatusConflict} {
		t.Run(name, func(t *testing.T) {
			const ttl = 2 * time.Second
			var granted atomic.Int64 // Unix nanoseconds
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var body map[string]any
				data, _ := io.ReadAll(r.Body)
				_ = json.Unmarshal(data, &body)
				if body["secret"] != nil && body["renew"] == nil && body["release"] == nil {
					granted.Store(time.Now().UnixNano())
					fmt.Fprintf(w, `{"data":{"name":"n","held":true,"number":7,"ttl":%q},"name":"n","held":true,"number":7,"ttl":%q}`, ttl, ttl)
					return
				}
				w.WriteHeader(status)
				fmt.Fprint(w, `{"errors":["no"]}`)
			}))
			defer node.Close()
			beats := filepath.Join(t.TempDir(), "beats")
			cmd := exec.Command(builtBinary(t), "lock", "-address", node.URL, "-ttl", ttl.String(), "-stop-timeout", "300ms", "n", "--",
				"sh", "-c", `trap "" TERM; while :; do date +%s%N >> `+beats+`; sleep 0.02; done`)
			cmd.Env = append(os.Environ(), "LOCUM_TOKEN=t")
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != 137 || !strings.Contains(string(out), "the command is ended") {
				t.Errorf("%v: %s", err, out)
			}
			data, err := os.ReadFile(beats)
			lines := strings.Fields(string(data))
			if err != nil || len(lines) == 0 {
				t.Fatalf("the command has not run: %v", err)
			}
			last, err := strconv.ParseInt(lines[len(lines)-1], 10, 64)
			if ran := time.Duration(last - granted.Load()); err != nil || ran >= ttl {
				t.Errorf("the command ran until %s after the grant; the lock is free for others after %s", ran, ttl)
			}
		})
	}
}
