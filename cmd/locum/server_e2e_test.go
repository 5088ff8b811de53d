package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serverRun is a "locum server" in a process of its own.
type serverRun struct {
	cmd     *exec.Cmd
	exited  chan error
	address string
	mu      sync.Mutex
	out     bytes.Buffer
}

func (s *serverRun) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *serverRun) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// await polls until the condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatal("not within 30s: " + what)
		case <-tick.C:
		}
	}
}

func startServer(t *testing.T, config, address string) *serverRun {
	t.Helper()
	s := &serverRun{exited: make(chan error, 1), address: address}
	s.cmd = exec.Command(builtBinary(t), "server", "-config", config)
	s.cmd.Stdout, s.cmd.Stderr = s, s
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("server:\n%s", s.output())
		}
	})
	return s
}

// stop ends the server as a service manager does.
func (s *serverRun) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			t.Errorf("exit: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("does not end")
	}
}

// locum runs a command against the server and returns its exit code and output.
func (s *serverRun) locum(t *testing.T, token, stdin string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, builtBinary(t), args...)
	cmd.Env = append(os.Environ(), "LOCUM_ADDR="+s.address, "LOCUM_TOKEN="+token)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (s *serverRun) must(t *testing.T, token, stdin string, args ...string) string {
	t.Helper()
	code, out := s.locum(t, token, stdin, args...)
	if code != 0 {
		t.Fatalf("locum %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func writeConfig(t *testing.T, path string, port int, extra string) {
	t.Helper()
	text := fmt.Sprintf("node_name = \"node-a\"\nlistener \"tcp\" {\n  address = \"127.0.0.1:%d\"\n  tls_disable = true\n}\n"+
		"storage \"raft\" {\n  path = %q\n}\n%s", port, filepath.Join(filepath.Dir(path), "data"), extra)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// One node through its whole life, by the commands that a user types.
func TestServer(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs a server")
	}
	port := freePorts(t)
	address := fmt.Sprintf("http://127.0.0.1:%d", port)
	config := filepath.Join(t.TempDir(), "locum.hcl")
	writeConfig(t, config, port, "")
	s := startServer(t, config, address)
	await(t, "the node answers", func() bool { code, _ := s.locum(t, "", "", "status"); return code == 2 })
	for _, want := range []string{"Api Address: " + address, "Storage: raft (HA available)", "Seal: shamir"} {
		if !strings.Contains(s.output(), want) {
			t.Errorf("the start-up table lacks %q:\n%s", want, s.output())
		}
	}

	var secrets initOutput
	if err := json.Unmarshal([]byte(s.must(t, "", "", "operator", "init", "-key-shares=3", "-key-threshold=2", "-format=json")), &secrets); err != nil {
		t.Fatal(err)
	}
	token := secrets.RootToken
	s.must(t, token, "", "operator", "seal") // init leaves the node open: from here on the shares that were printed are needed
	if code, out := s.locum(t, "", "", "status"); code != 2 {
		t.Errorf("status of a sealed node: %d\n%s", code, out)
	}
	s.must(t, "", secrets.UnsealKeysB64[2]+"\n", "operator", "unseal")
	s.must(t, "", secrets.UnsealKeysHex[0]+"\n", "operator", "unseal")
	await(t, "the node is active", func() bool {
		_, out := s.locum(t, "", "", "status")
		return strings.Contains(out, "HA Mode") && strings.Contains(out, "active")
	})
	await(t, "it serves", func() bool { code, _ := s.locum(t, token, "", "kv", "put", "app/x", "a=1"); return code == 0 })
	for _, args := range [][]string{
		{"kv", "get", "app/x"}, {"kv", "list"}, {"kv", "put", "-cas=1", "app/x", "a=2"}, {"operator", "members"}, {"operator", "history"},
		{"operator", "key-status"}, {"operator", "rotate"}, {"operator", "raft", "list-peers"},
		{"operator", "raft", "snapshot", "save", filepath.Join(filepath.Dir(config), "s.snap")},
	} {
		out := s.must(t, token, "", args...)
		if len(strings.TrimSpace(out)) == 0 {
			t.Errorf("locum %s prints nothing", strings.Join(args, " "))
		}
	}
	if code, out := s.locum(t, token, "", "kv", "put", "-cas=1", "app/x", "a=3"); code != 1 || !strings.Contains(out, "error: ") {
		t.Errorf("a stale version was overwritten: %d %s", code, out)
	}
	if code, out := s.locum(t, "wrong", "", "kv", "get", "app/x"); code != 1 || !strings.Contains(out, "hint: set LOCUM_TOKEN") {
		t.Errorf("a wrong token: %d %s", code, out)
	}

	reloads(t, s, config, port)
	s.stop(t)
	recovers(t, config, address, secrets)
}

// reloads: a bad file leaves the running configuration as it is; a good one changes the log level.
func reloads(t *testing.T, s *serverRun, config string, port int) {
	t.Helper()
	writeConfig(t, config, port, "log_level = \"loud\"\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, "the bad file is refused", func() bool { return strings.Contains(s.output(), "configuration not reloaded") })
	writeConfig(t, config, port, "log_level = \"debug\"\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(t, "the good file is taken", func() bool { return strings.Contains(s.output(), "configuration reloaded") })
}

// recovers: the data survives the recovery of a node that stands alone.
func recovers(t *testing.T, config, address string, secrets initOutput) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, builtBinary(t), "operator", "raft", "recover", "-config", config, "-yes").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "is now the only one") {
		t.Fatalf("recover: %v\n%s", err, out)
	}
	s := startServer(t, config, address)
	await(t, "the node answers", func() bool { code, _ := s.locum(t, "", "", "status"); return code == 2 })
	s.must(t, "", secrets.UnsealKeysB64[0]+"\n", "operator", "unseal")
	s.must(t, "", secrets.UnsealKeysB64[1]+"\n", "operator", "unseal")
	await(t, "the entry is there", func() bool {
		_, out := s.locum(t, secrets.RootToken, "", "kv", "get", "-field=a", "app/x")
		return strings.TrimSpace(out) == "2"
	})
	skipsTheDrain(t, s, secrets.RootToken)
}

// skipsTheDrain: interfaces §6, "a second one skips the drain". The request in flight never ends by itself, and the drain limit
// is 15 s.
func skipsTheDrain(t *testing.T, s *serverRun, token string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/secret/data/slow HTTP/1.1\r\nHost: a\r\nX-Vault-Token: %s\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", token)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("the request is not in flight: %q %v", line, err)
	}
	for range 2 {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		await(t, "it drains", func() bool { return strings.Contains(s.output(), "draining") })
	}
	start := time.Now()
	select {
	case err := <-s.exited:
		if err != nil {
			t.Errorf("exit: %v", err)
		}
		t.Logf("ended %v after the second signal", time.Since(start))
	case <-time.After(10 * time.Second):
		t.Fatal("a second signal does not skip the drain")
	}
}
