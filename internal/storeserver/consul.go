package storeserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ConsulVersion is the version that "make deps" builds: the newest that resolves as a Go module.
const ConsulVersion = "1.13.9"

// Consul is an agent of Consul, in server mode and alone in its cluster.
type Consul struct {
	*Process
	Addr    string // of its HTTP API, "host:port"
	TLSAddr string // the same over TLS; "" unless the settings have a block "tls"
}

// ConsulRoot is the token that may do everything where access control is on (ConsulAccess).
const ConsulRoot = "5f1c1e4c-6b1e-4b0e-9d5c-7a0f3d1c2b3a"

// ConsulAccess is the setting "acl" of an agent that demands tokens.
func ConsulAccess() map[string]any {
	return map[string]any{
		"enabled": true, "default_policy": "deny", "tokens": map[string]any{"initial_management": ConsulRoot, "agent": ConsulRoot},
	}
}

// StartConsul starts an agent with its data on disk. settings are added to its configuration file. Sessions may be as
// short as a second there, where Consul's own minimum is ten: "session_ttl_min" puts that back.
func StartConsul(t T, settings map[string]any) *Consul {
	t.Helper()
	path := consulPath(t)
	dir := Dir(t, "")
	addr := Loopback(FreePort(t))
	_, httpPort, _ := net.SplitHostPort(addr)
	number, _ := strconv.Atoi(httpPort)
	server := &Consul{Addr: addr}
	ports := map[string]any{"http": number, "server": FreePort(t), "serf_lan": FreePort(t), "serf_wan": -1, "dns": -1, "grpc": -1}
	if settings["tls"] != nil {
		secure := FreePort(t)
		ports["https"], server.TLSAddr = secure, Loopback(secure)
	}
	all := map[string]any{
		"server": true, "bootstrap_expect": 1, "node_name": "test", "datacenter": "dc1", "log_level": "warn",
		"data_dir": filepath.Join(dir, "data"), "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
		"disable_update_check": true, "session_ttl_min": "1s", "performance": map[string]any{"raft_multiplier": 1},
		"ports":  ports,
		"limits": map[string]any{"http_max_conns_per_client": 10000}, // all clients of a test are one host
	}
	maps.Copy(all, settings)
	file := filepath.Join(dir, "consul.json")
	text, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatalf("consul: %v", err)
	}
	server.Process = Launch(t, Spec{
		Name: "consul", Dir: dir, Path: path, Args: []string{"agent", "-config-file", file}, StopSignal: syscall.SIGINT,
		Ready: func(ctx context.Context) error { return consulLeads(ctx, addr) },
	})
	return server
}

// consulLeads reports whether the agent has elected itself and serves: it knows of a leader before it takes writes, but not
// before it lists its own node.
func consulLeads(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/status/leader", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	leader, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if len(strings.Trim(strings.TrimSpace(string(leader)), `"`)) == 0 {
		return fmt.Errorf("no leader yet")
	}
	return consulLists(ctx, transport, addr)
}

// consulLists reports whether the agent has registered itself, as a leader does first.
func consulLists(ctx context.Context, transport *http.Transport, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/health/node/test", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Consul-Token", ConsulRoot) // of no meaning where no token is demanded
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var checks []map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&checks); err != nil {
		return err
	}
	for _, check := range checks {
		if check["CheckID"] == "serfHealth" && check["Status"] == "passing" {
			return nil
		}
	}
	return fmt.Errorf("it does not list itself yet")
}

// ConsulCache is where "make deps" puts the program.
func ConsulCache() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "locum", "consul-"+ConsulVersion), err
}

// consulPath finds the program: the one that LOCUM_CONSUL names, the one that "make deps" built, or one in the path.
func consulPath(t T) string {
	t.Helper()
	if path := os.Getenv("LOCUM_CONSUL"); path != "" {
		return path
	}
	if path, err := ConsulCache(); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if path, err := exec.LookPath("consul"); err == nil {
		return path
	}
	Missing(t, "there is no consul: \"make deps\" builds it")
	return ""
}
