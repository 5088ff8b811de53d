package config

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const minimal = `
storage "raft" { path = "/var/lib/locum" }
listener "tcp" {
  address     = "0.0.0.0:8400"
  tls_disable = true
}
`

// host is a Source of a host with two addresses and an environment.
func host(env map[string]string) Source {
	return Source{
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Hostname:  func() (string, error) { return "node-a", nil },
		Addresses: func() ([]netip.Addr, error) {
			return []netip.Addr{
				netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.9"),
				netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.1.2.3"),
			}, nil
		},
	}
}

func complete(t *testing.T, text string, source Source) (*Config, error) {
	t.Helper()
	c, err := Parse("node.hcl", []byte(text))
	if err != nil {
		return nil, err
	}
	return c, c.Complete(source)
}

func mustComplete(t *testing.T, text string, source Source) *Config {
	t.Helper()
	c, err := complete(t, text, source)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEverySetting(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "seal.key")
	if err := os.WriteFile(key, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mustComplete(t, fmt.Sprintf(`
cluster_name = "orders"
node_name    = "node-b"
api_addr     = "https://a.example.com:8400/locum/"
cluster_addr = "https://a.example.com:8401"
listener "tcp" {
  address                          = "0.0.0.0:8400"
  cluster_address                  = "0.0.0.0:8401"
  tls_disable                      = true
  x_forwarded_for_authorized_addrs = ["10.0.0.0/8", "::1"]
  proxy_protocol                   = true
  proxy_protocol_authorized_addrs  = ["10.0.0.7"]
  tls_min_version                  = "tls13"
  http_read_header_timeout         = "3s"
  http_read_timeout                = "1m"
  http_idle_timeout                = "2m"
  http_min_body_rate               = "1kB"
  max_header_bytes                 = "8KiB"
  max_request_size                 = "32MiB"
}
listener "tcp" {
  address     = "127.0.0.1:9400"
  tls_disable = true
}
listener "unix" {
  address                          = "/locum.sock"
  socket_mode                      = "0660"
  socket_user                      = "0"
  socket_group                     = "0"
  x_forwarded_for_authorized_addrs = ["unix"]
}
storage "raft" {
  path        = "/var/lib/locum"
  performance = "wan"
  retry_join {
    leader_api_addr       = "https://b.example.com:8400"
    leader_ca_cert        = "PEM"
    leader_tls_servername = "b"
  }
  retry_join {
    leader_api_addr = "http://c.example.com:8400"
  }
  snapshot_size           = "128MiB"
  dead_peer_timeout       = "1h"
}
seal "static" { key_file = %q }
ha {
  priority       = 50
  candidate      = false
  drain_timeout  = "10s"
  shutdown_delay = "5s"
}
forwarding {
  mode              = "redirect"
  hold_timeout      = "30s"
  hold_max_requests = 7
  hold_max_bytes    = "1GiB"
  retry_buffer      = "2kB"
}
telemetry {
  prometheus_retention_time      = "1m"
  unauthenticated_metrics_access = true
}
log_level  = "debug"
log_format = "json"
`, key), host(nil))
	plain, unix := NewListener("tcp"), NewListener("unix")
	plain.Address, plain.TLSDisable = "127.0.0.1:9400", true
	unix.Address, unix.TLSDisable = "/locum.sock", true
	unix.SocketMode, unix.SocketUser, unix.SocketGroup = "0660", "0", "0"
	unix.XForwardedForAuthorizedAddrs = []string{"unix"}
	want := &Config{
		ClusterName: "orders", NodeName: "node-b",
		APIAddr: "https://a.example.com:8400/locum", ClusterAddr: "https://a.example.com:8401",
		APIAddrFrom: "node.hcl:4", ClusterAddrFrom: "node.hcl:5",
		Listeners: []Listener{
			{Type: "tcp", Address: "0.0.0.0:8400", ClusterAddress: "0.0.0.0:8401", TLSDisable: true,
				XForwardedForAuthorizedAddrs: []string{"10.0.0.0/8", "::1"}, MaxRequestSize: 32 << 20,
				ProxyProtocol: true, ProxyProtocolAuthorizedAddrs: []string{"10.0.0.7"}, TLSMinVersion: "tls13",
				HTTPReadHeaderTimeout: 3 * time.Second, HTTPReadTimeout: time.Minute, HTTPIdleTimeout: 2 * time.Minute,
				HTTPMinBodyRate: 1000, MaxHeaderBytes: 8 << 10},
			plain, unix,
		},
		Storage: Storage{Type: "raft", Raft: RaftStorage{
			Path: "/var/lib/locum", Performance: 5,
			RetryJoin: []RetryJoin{
				{LeaderAPIAddr: "https://b.example.com:8400", LeaderCACert: "PEM", LeaderTLSServerName: "b"},
				{LeaderAPIAddr: "http://c.example.com:8400"},
			},
			SnapshotSize: 128 << 20, DeadPeerTimeout: time.Hour,
		}},
		Seal: Seal{Type: "static", Static: StaticSeal{KeyFile: key}},
		HA:   HA{Priority: 50, DrainTimeout: 10 * time.Second, ShutdownDelay: 5 * time.Second},
		Forwarding: Forwarding{Mode: "redirect", HoldTimeout: 30 * time.Second, HoldMaxRequests: 7,
			HoldMaxBytes: 1 << 30, RetryBuffer: 2000},
		Cache:     DefaultCache(),
		RateLimit: RateLimit{RequestsPerSecond: 50, Burst: 200},
		Telemetry: Telemetry{PrometheusRetentionTime: time.Minute, UnauthenticatedMetricsAccess: true},
		LogLevel:  "debug", LogFormat: "json",
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
	if got, _ := c.Listeners[0].AuthorizedProxies(); len(got) != 2 || !got[0].Contains(netip.MustParseAddr("10.9.9.9")) || got[1].Bits() != 128 {
		t.Errorf("authorised proxies: %v", got)
	}
}

// What others are told about comes from the first listener on TCP, wherever it stands.
func TestUnixListenerFirst(t *testing.T) {
	c := mustComplete(t, "listener \"unix\" {\n address = \"/locum.sock\"\n}\n"+minimal, host(nil))
	if c.APIListen() != "0.0.0.0:8400" || c.ClusterListen() != "0.0.0.0:8401" || c.APIAddr != "http://10.1.2.3:8400" {
		t.Errorf("api %s, cluster %s, api_addr %s", c.APIListen(), c.ClusterListen(), c.APIAddr)
	}
	if l := c.Listeners[0]; !l.TLSDisable || l.Mode() != 0o600 {
		t.Errorf("a unix listener's own defaults: %+v", l)
	}
	alone := mustComplete(t, "storage \"inmem\" {\n}\nlistener \"unix\" {\n address = \"/locum.sock\"\n}\n", host(nil))
	if alone.APIAddr != "" || alone.APIListen() != "" || alone.ClusterListen() != "" {
		t.Errorf("a node alone on a socket has an address: %+v", alone)
	}
}

func TestDefaults(t *testing.T) {
	c := mustComplete(t, minimal, host(nil))
	if l := c.Listeners[0]; l.HTTPReadHeaderTimeout != 10*time.Second || l.HTTPReadTimeout != 0 || l.HTTPIdleTimeout != 5*time.Minute ||
		l.HTTPMinBodyRate != 256 || l.MaxHeaderBytes != 64<<10 || l.MinTLS() != tls.VersionTLS12 {
		t.Errorf("listener: %+v", l)
	}
	for name, pair := range map[string][2]any{
		"node_name":       {c.NodeName, "node-a"},
		"api_addr":        {c.APIAddr, "http://10.1.2.3:8400"},
		"from":            {c.APIAddrFrom, "this host's first private address"},
		"cluster_addr":    {c.ClusterAddr, "https://10.1.2.3:8401"},
		"cluster_address": {c.ClusterListen(), "0.0.0.0:8401"},
		"seal":            {c.Seal.Type, "shamir"},
		"performance":     {c.Storage.Raft.Performance, Performance(1)},
		"snapshot_size":   {c.Storage.Raft.SnapshotSize.String(), "64MiB"},
		"hold_timeout":    {c.Forwarding.HoldTimeout, 40 * time.Second},
		"hold_max_bytes":  {c.Forwarding.HoldMaxBytes, Size(64 << 20)},
		"candidate":       {c.HA.Candidate, true},
		"warnings":        {len(c.Warnings), 0},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
}

// The precedence of the environment over the file.
func TestEnvironment(t *testing.T) {
	file := minimal + "api_addr = \"https://file:8400\"\ncluster_addr = \"https://file:8401\"\n"
	cases := []struct {
		env                map[string]string
		flag, api, cluster string
		warnings           int
	}{
		{nil, "", "https://file:8400", "https://file:8401", 0},
		{map[string]string{"VAULT_API_ADDR": "https://v:1", "VAULT_CLUSTER_ADDR": "https://v:2"}, "", "https://v:1", "https://v:2", 0},
		{map[string]string{"VAULT_API_ADDR": "https://v:1", "LOCUM_API_ADDR": "https://l:1",
			"VAULT_CLUSTER_ADDR": "https://v:2", "LOCUM_CLUSTER_ADDR": "https://l:2"}, "", "https://l:1", "https://l:2", 0},
		{map[string]string{"VAULT_API_ADDR": "https://v:1", "LOCUM_API_ADDR": ""}, "", "https://v:1", "https://file:8401", 0},
		{map[string]string{"VAULT_API_ADDR": "https://v:1", "LOCUM_CLUSTER_ADVERTISE_ADDR": "https://adv:1"}, "", "https://adv:1", "https://file:8401", 0},
		{map[string]string{"LOCUM_API_ADDR": "https://l:1", "LOCUM_CLUSTER_ADVERTISE_ADDR": "https://adv:1"}, "", "https://l:1", "https://file:8401", 1},
		{map[string]string{"LOCUM_API_ADDR": "https://l:1"}, "https://flag:1", "https://flag:1", "https://file:8401", 1},
	}
	for _, tc := range cases {
		source := host(tc.env)
		source.AdvertiseAddr = tc.flag
		c := mustComplete(t, file, source)
		if c.APIAddr != tc.api || c.ClusterAddr != tc.cluster || len(c.Warnings) != tc.warnings {
			t.Errorf("%v -cluster-advertise-addr=%q: api_addr %s, cluster_addr %s, warnings %q", tc.env, tc.flag, c.APIAddr, c.ClusterAddr, c.Warnings)
		}
	}
	_, err := complete(t, file, host(map[string]string{"LOCUM_API_ADDR": "l:1"}))
	if err == nil || !strings.Contains(err.Error(), `environment LOCUM_API_ADDR: api_addr: "l:1" has no scheme`) {
		t.Errorf("a fault in the environment: %v", err)
	}
}

func TestAddressDetection(t *testing.T) {
	public := host(nil)
	public.Addresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("203.0.113.9")}, nil }
	if _, err := complete(t, minimal, public); err == nil || !strings.Contains(err.Error(), "api_addr: not given, and this host has no private address") {
		t.Errorf("an HA node without an address: %v", err)
	}
	alone := strings.Replace(minimal, `"raft" { path`, `"file" { path`, 1)
	if _, err := complete(t, alone, public); err != nil {
		t.Errorf("a node alone needs no address: %v", err)
	}
	six := host(nil)
	six.Addresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("fd00::1")}, nil }
	if c := mustComplete(t, minimal, six); c.APIAddr != "http://[fd00::1]:8400" || c.ClusterAddr != "https://[fd00::1]:8401" {
		t.Errorf("IPv6: %s, %s", c.APIAddr, c.ClusterAddr)
	}
	bound := strings.Replace(minimal, "0.0.0.0", "192.168.7.7", 1)
	if c := mustComplete(t, bound, host(nil)); c.APIAddr != "http://192.168.7.7:8400" || c.APIAddrFrom != "the listener's address" {
		t.Errorf("bound to one address: %s (%s)", c.APIAddr, c.APIAddrFrom)
	}
	named := minimal + `api_addr = "http://a.example.com:8400/x"`
	if c := mustComplete(t, named, host(nil)); c.ClusterAddr != "https://a.example.com:8401" {
		t.Errorf("cluster_addr beside api_addr: %s", c.ClusterAddr)
	}
	// One load balancer in front of all nodes: its host is not this node's.
	balanced := minimal + `api_addr = "https://lb.example.com"`
	if c := mustComplete(t, balanced, host(nil)); c.ClusterAddr != "https://10.1.2.3:8401" {
		t.Errorf("cluster_addr behind a load balancer: %s", c.ClusterAddr)
	}
}

func TestLoopbackAdvertised(t *testing.T) {
	local := strings.Replace(minimal, "0.0.0.0", "127.0.0.1", 1)
	if c := mustComplete(t, local, host(nil)); len(c.Warnings) != 0 {
		t.Errorf("all on one host: %q", c.Warnings)
	}
	if c := mustComplete(t, minimal+`api_addr = "http://localhost:8400"`, host(nil)); len(c.Warnings) != 2 {
		t.Errorf("loopback told to others: %q", c.Warnings)
	}
	joining := strings.Replace(local, `path = "/var/lib/locum"`, "path = \"/d\"\n retry_join {\n leader_api_addr = \"http://b:1\"\n }\n", 1)
	joining = strings.Replace(joining, `storage "raft" { path`, "storage \"raft\" {\n path", 1)
	_, err := complete(t, joining, host(nil))
	if err == nil || strings.Count(err.Error(), "means this host only, and b is another one") != 2 {
		t.Errorf("loopback told to another host: %v", err)
	}
}

func TestFilesAreMerged(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := write("base.hcl", minimal+"log_level = \"debug\"\nnode_name = \"base\"\nha {\n priority = 7\n candidate = false\n}\n")
	write("d/20.json", `{"node_name": "from-json", "ha": {"priority": 9}, "listener": [{"tcp": {"address": "127.0.0.1:9400", "tls_disable": true}}]}`)
	write("d/10.hcl", `node_name = "ten"`)
	write("d/notes.txt", `not a configuration`)
	source := host(nil)
	source.Paths = []string{one, filepath.Join(dir, "d")}
	c, err := Load(source)
	if err != nil {
		t.Fatal(err)
	}
	if c.NodeName != "from-json" || c.LogLevel != "debug" || c.HA.Priority != 9 || c.HA.Candidate || len(c.Listeners) != 2 || c.Storage.Type != "raft" {
		t.Errorf("merged: %+v", c)
	}
	write("d/30.hcl", `storage "inmem" {}`)
	if c, err = Load(source); err != nil || c.Storage.Type != "inmem" || c.Storage.Raft.Path != "" {
		t.Errorf("a later storage replaces an earlier one: %+v, %v", c, err)
	}
	for _, bad := range []string{filepath.Join(dir, "none.hcl"), t.TempDir()} {
		if _, err := Read(bad); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestManualIsComplete(t *testing.T) {
	entries, err := Manual()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, e := range entries {
		if e.Doc == "" || !strings.HasSuffix(e.Doc, ".") {
			t.Errorf("%s: its comment is %q", e.Path, e.Doc)
		}
		paths = append(paths, e.Path)
	}
	for _, want := range []string{"api_addr", "listener / address", `storage "raft" / retry_join / leader_api_addr`, `seal "static" / key_file`} {
		if !slices.Contains(paths, want) {
			t.Errorf("%s is not in the manual", want)
		}
	}
}
