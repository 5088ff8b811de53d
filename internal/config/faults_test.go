package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each fault says where it stands and what to write instead.
func TestFaults(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"syntax", "listener \"tcp\" {\n", "node.hcl:1: "},
		{"unknown key", minimal + "api_adr = \"x\"\n", `node.hcl:7: Unsupported argument; An argument named "api_adr" is not expected here. Did you mean "api_addr"?`},
		{"unknown key in a block", "\nstorage \"raft\" {\n  path = \"/d\"\n  pth = \"/e\"\n}\n", `node.hcl:4: Unsupported argument`},
		{"Vault's key", minimal + "ui = true\n", "node.hcl:7: ui: not a setting of Locum; remove it"},
		{"Vault's node_id", "storage \"raft\" {\n  path = \"/d\"\n  node_id = \"a\"\n}\n", "node.hcl:3: node_id: not a setting of Locum; remove it: the identity is made with the data directory"},
		{"cache host", minimal + "cache {\n hosts = [\"node-a:8402\"]\n}\n", `node.hcl:8: cache.hosts: "node-a:8402" has no scheme; write it such as "http://node-a:8402"`},
		{"cache without its secret", minimal + "cache {\n hosts = [\"http://a:1\", \"http://b:1\"]\n auth_token_env = \"LOCUM_NO_SUCH\"\n}\n", `node.hcl:9: cache.auth_token_env: the environment has no LOCUM_NO_SUCH; set it before the start`},
		{"cache secret itself", minimal + "cache {\n auth_token_env = \"not-a-name\"\n}\n", `node.hcl:8: cache.auth_token_env: not the name of an environment variable; write the variable's name, not the value`},
		{"cache for all", minimal + "cache {\n resp_address = \"0.0.0.0:6379\"\n resp_password_env = \"LOCUM_NO_SUCH\"\n}\n", `node.hcl:8: cache.resp_address: 0.0.0.0:6379 can be reached from other hosts`},
		{"cache address", minimal + "cache {\n resp_address = \"redis://x\"\n}\n", `node.hcl:8: cache.resp_address: "redis://x" is a URL`},
		{"cache too small", minimal + "cache {\n max_bytes = \"1KiB\"\n}\n", `node.hcl:8: cache.max_bytes: 1KiB is too small; write at least "1MiB"`},
		{"cache bounds twice", minimal + "cache {\n bounds \"a\" {\n }\n bounds \"a\" {\n }\n}\n", `node.hcl:10: cache.bounds[1]: the name "a" is empty, too long, or another block's too`},
		{"lock-only storage", strings.Replace(minimal, `"raft" { path = "/var/lib/locum" }`, `"redis" { }`, 1), `node.hcl:2: storage: "redis" keeps the HA lock only: it has no transaction over several entries and a fence; write ha_storage "redis", beside a storage of "raft", "file",`},
		{"unknown storage", strings.Replace(minimal, `"raft"`, `"rafd"`, 1), `node.hcl:2: storage: "rafd" is not known; write "raft", "file", "inmem", "consul", "etcd",`},
		{"no storage", "listener \"tcp\" {\n tls_disable = true\n}\n", `storage: missing; write storage "raft" { path = "/var/lib/locum" }`},
		{"no listener", "storage \"raft\" {\n path = \"/d\"\n}\n", `listener: missing; write listener "tcp"`},
		{"no path", "storage \"raft\" {\n}\n", "node.hcl:1: storage.path: missing"},
		{"ha_storage with raft", minimal + "ha_storage \"consul\" {\n}\n", "node.hcl:7: ha_storage: raft storage has its own lock; remove the block"},
		{"ha_storage with file", strings.Replace(minimal, `"raft"`, `"file"`, 1) + "ha_storage \"consul\" {\n}\n", `node.hcl:7: ha_storage: storage "file" can be opened by one node only: a lock that other nodes see would be of no use; remove the block, or use a storage that all nodes reach: "consul", "etcd",`},
		{"file as ha_storage", strings.Replace(minimal, `"raft" { path = "/var/lib/locum" }`, `"etcd" { }`, 1) + "ha_storage \"file\" {\n}\n", `node.hcl:7: ha_storage: "file" is seen by one node only: each would hold a lock of its own; write "consul",`},
		{"raft as ha_storage", strings.Replace(minimal, `"raft" { path = "/var/lib/locum" }`, `"etcd" { }`, 1) + "ha_storage \"raft\" {\n}\n", `node.hcl:7: ha_storage: "raft" can be a lock for itself only`},
		{"lock_ttl with raft", minimal + "ha {\n lock_ttl = \"5s\"\n}\n", "node.hcl:8: ha.lock_ttl: raft storage takes none"},
		{"number as duration", minimal + "ha {\n drain_timeout = 15\n}\n", `node.hcl:8: ha.drain_timeout: number where a string is expected; write a duration with its unit, such as "15s", in quotes`},
		{"duration without unit", minimal + "ha {\n drain_timeout = \"15\"\n}\n", `duration "15"; write a number with a unit, such as "15s"`},
		{"negative duration", minimal + "ha {\n drain_timeout = \"-1s\"\n}\n", `node.hcl:8: ha.drain_timeout: duration "-1s"`},
		{"number as size", minimal + "forwarding {\n retry_buffer = 1024\n}\n", `write a size with its unit, such as "64MiB"`},
		{"size without unit", minimal + "forwarding {\n retry_buffer = \"1024\"\n}\n", `node.hcl:8: forwarding.retry_buffer: size "1024"; write a number with a unit`},
		{"string as number", minimal + "ha {\n priority = \"1\"\n}\n", "node.hcl:8: ha.priority: string where a whole number is expected"},
		{"fraction", minimal + "ha {\n priority = 1.5\n}\n", "ha.priority: number where a whole number is expected"},
		{"huge", minimal + "ha {\n priority = 99999999999999999999\n}\n", "ha.priority: number out of range"},
		{"string as bool", minimal + "ha {\n candidate = \"yes\"\n}\n", "ha.candidate: string where a bool is expected; write true or false"},
		{"null", minimal + "log_level = null\n", "node.hcl:7: log_level: no value; write one, or remove the line"},
		{"variable", minimal + "log_level = level\n", "node.hcl:7: Variables not allowed"},
		{"list of the wrong thing", "listener \"tcp\" {\n x_forwarded_for_authorized_addrs = \"a\"\n}\n", "string where a list of strings is expected"},
		{"priority", minimal + "ha {\n priority = 2000\n}\n", "node.hcl:8: ha.priority: 2000 is out of range"},
		{"hold shorter than drain", minimal + "ha {\n drain_timeout = \"30s\"\n}\n", `node.hcl:8: ha.drain_timeout: hold_timeout is 40s, less than drain_timeout (30s) + 20s: requests would fail in a planned step-down; write hold_timeout = "50s" or more`},
		{"hold too short", minimal + "forwarding {\n hold_timeout = \"30s\"\n}\n", "node.hcl:8: forwarding.hold_timeout: hold_timeout is 30s"},
		{"mode", minimal + "forwarding {\n mode = \"both\"\n}\n", `node.hcl:8: forwarding.mode: "both" is not known; write "forward" or "redirect"`},
		{"log level", minimal + "log_level = \"loud\"\n", `node.hcl:7: log_level: "loud" is not known; write "debug", "info", "warn" or "error"`},
		{"api_addr without scheme", minimal + "api_addr = \"a:8400\"\n", `node.hcl:7: api_addr: "a:8400" has no scheme; write it such as "https://a.example.com:8400"`},
		{"api_addr with query", minimal + "api_addr = \"https://a:8400?x=1\"\n", "has a query or fragment"},
		{"api_addr with a password", minimal + "api_addr = \"https://u:secret@a:8400\"\n", "the URL has a user name or password"},
		{"api_addr of nobody", minimal + "api_addr = \"http://0.0.0.0:8400\"\n", "api_addr: nobody can connect to 0.0.0.0; write the name or address under which clients reach this node"},
		{"cluster_addr in plain text", minimal + "cluster_addr = \"http://a:8401\"\n", `node.hcl:7: cluster_addr: scheme "http" does not fit; write it such as "https://a.example.com:8401"`},
		{"cluster_addr without port", minimal + "cluster_addr = \"https://a\"\n", "is not https://host:port"},
		{"one address for both", minimal + "api_addr = \"http://a:8400\"\ncluster_addr = \"https://a:8400\"\n", "node.hcl:8: cluster_addr: a:8400 is api_addr's too; give one of them another port"},
		{"two uses of one port", minimal + "listener \"tcp\" {\n address = \"127.0.0.1:8401\"\n tls_disable = true\n}\n", "port 8401 is used by listener[1].address too; give one of them another port"},
		{"listener as URL", "listener \"tcp\" {\n address = \"http://a:1\"\n tls_disable = true\n}\n", `listener[0].address: "http://a:1" is a URL; write host:port`},
		{"listener without port", "listener \"tcp\" {\n address = \"a\"\n tls_disable = true\n}\n", `node.hcl:2: listener[0].address: "a" is not host:port`},
		{"unknown listener", "listener \"quic\" {\n tls_disable = true\n}\n", `node.hcl:1: listener[0]: type "quic" is not known; write listener "tcp" or listener "unix"`},
		{"unix without path", minimal + "listener \"unix\" {\n}\n", `node.hcl:7: listener[1].address: missing; write an absolute path`},
		{"unix with port", minimal + "listener \"unix\" {\n address = \"0.0.0.0:1\"\n}\n", `node.hcl:8: listener[1].address: "0.0.0.0:1" is not an absolute path`},
		{"unix with a long path", minimal + "listener \"unix\" {\n address = \"/" + strings.Repeat("x", 110) + "\"\n}\n", "the path has 111 bytes, and a socket's may have 103"},
		{"unix in no folder", minimal + "listener \"unix\" {\n address = \"/nowhere/l.sock\"\n}\n", "node.hcl:8: listener[1].address: there is no folder /nowhere; make it"},
		{"unix with cluster port", minimal + "listener \"unix\" {\n address = \"/l.sock\"\n cluster_address = \"0.0.0.0:1\"\n}\n", "node.hcl:9: listener[1].cluster_address: the cluster port is a TCP port"},
		{"unix twice", minimal + "listener \"unix\" {\n address = \"/l.sock\"\n}\nlistener \"unix\" {\n address = \"/l.sock\"\n}\n", "node.hcl:11: listener[2].address: /l.sock is listener[1]'s too"},
		{"unix alone in a cluster", "storage \"raft\" {\n path = \"/d\"\n}\nlistener \"unix\" {\n address = \"/l.sock\"\n}\n", "listener: there is none on TCP"},
		{"socket mode", minimal + "listener \"unix\" {\n address = \"/l.sock\"\n socket_mode = \"u+rw\"\n}\n", `node.hcl:9: listener[1].socket_mode: "u+rw" are no permissions; write octal digits, such as "0660"`},
		{"socket mode that is too much", minimal + "listener \"unix\" {\n address = \"/l.sock\"\n socket_mode = \"4777\"\n}\n", `"4777" are no permissions`},
		{"socket user", minimal + "listener \"unix\" {\n address = \"/l.sock\"\n socket_user = \"nobody-at-all\"\n}\n", `node.hcl:9: listener[1].socket_user: there is no user "nobody-at-all" on this host`},
		{"socket group", minimal + "listener \"unix\" {\n address = \"/l.sock\"\n socket_group = \"nobody-at-all\"\n}\n", `there is no group "nobody-at-all"`},
		{"socket mode on tcp", "listener \"tcp\" {\n tls_disable = true\n socket_mode = \"0660\"\n}\n", `node.hcl:3: listener[0].socket_mode: a TCP port has none; remove the line, or write listener "unix"`},
		{"tcp with a path", "listener \"tcp\" {\n tls_disable = true\n address = \"/l.sock\"\n}\n", `"/l.sock" is a path; write listener "unix"`},
		{"no certificate", "listener \"tcp\" {\n}\n", "node.hcl:1: listener[0]: no certificate for TLS; set tls_cert_file and tls_key_file, or tls_disable = true"},
		{"certificate and plain", "listener \"tcp\" {\n tls_disable = true\n tls_cert_file = \"/x\"\n}\n", "tls_disable: true beside certificate files"},
		{"certificate that is not there", "listener \"tcp\" {\n tls_cert_file = \"/nowhere/c.pem\"\n tls_key_file = \"/nowhere/k.pem\"\n}\n", "node.hcl:2: listener[0].tls_cert_file: there is no file /nowhere/c.pem"},
		{"client CA and plain", "listener \"tcp\" {\n tls_disable = true\n tls_client_ca_file = \"/x\"\n}\n", "node.hcl:3: listener[0].tls_client_ca_file: clients show certificates with TLS only"},
		{"old TLS", "listener \"tcp\" {\n tls_disable = true\n tls_min_version = \"tls11\"\n}\n", `node.hcl:3: listener[0].tls_min_version: "tls11" is not secure any more; write "tls12" or "tls13"`},
		{"unknown TLS", "listener \"tcp\" {\n tls_disable = true\n tls_min_version = \"1.2\"\n}\n", `listener[0].tls_min_version: "1.2" is not known; write "tls12" or "tls13"`},
		{"proxy protocol from nobody", "listener \"tcp\" {\n tls_disable = true\n proxy_protocol = true\n}\n", "node.hcl:3: listener[0].proxy_protocol: nobody is authorised to send it; write proxy_protocol_authorized_addrs"},
		{"proxy protocol off", "listener \"tcp\" {\n tls_disable = true\n proxy_protocol_authorized_addrs = [\"10.0.0.7\"]\n}\n", "node.hcl:3: listener[0].proxy_protocol_authorized_addrs: the PROXY protocol is off; write proxy_protocol = true"},
		{"proxy protocol, bad range", "listener \"tcp\" {\n tls_disable = true\n proxy_protocol = true\n proxy_protocol_authorized_addrs = [\"lb\"]\n}\n", `node.hcl:4: listener[0].proxy_protocol_authorized_addrs: "lb" is neither an address nor a range`},
		{"unix on tcp", "listener \"tcp\" {\n tls_disable = true\n x_forwarded_for_authorized_addrs = [\"unix\"]\n}\n", `"unix" is for listener "unix"`},
		{"no time for the head", "listener \"tcp\" {\n tls_disable = true\n http_read_header_timeout = \"0\"\n}\n", `node.hcl:3: listener[0].http_read_header_timeout: 0s is too short: no client would get through; write at least "1s", such as "10s"`},
		{"no idle time", "listener \"tcp\" {\n tls_disable = true\n http_idle_timeout = \"1ms\"\n}\n", "listener[0].http_idle_timeout: 1ms is too short"},
		{"no time for the body", "listener \"tcp\" {\n tls_disable = true\n http_read_timeout = \"1ms\"\n}\n", "listener[0].http_read_timeout: 1ms is too short"},
		{"head too long", "listener \"tcp\" {\n tls_disable = true\n max_header_bytes = \"1GiB\"\n}\n", `node.hcl:3: listener[0].max_header_bytes: 1GiB is out of range; write a size from "4KiB" to "1MiB"`},
		{"Vault's proxy_protocol_behavior", "listener \"tcp\" {\n tls_disable = true\n proxy_protocol_behavior = \"use_always\"\n}\n", "node.hcl:3: proxy_protocol_behavior: not a setting of Locum; write proxy_protocol = true, with"},
		{"bad range", "listener \"tcp\" {\n tls_disable = true\n x_forwarded_for_authorized_addrs = [\"10.0.0.0/99\"]\n}\n", `"10.0.0.0/99" is neither an address nor a range`},
		{"two cluster ports", minimal + "listener \"tcp\" {\n address = \"0.0.0.0:9\"\n cluster_address = \"0.0.0.0:10\"\n tls_disable = true\n}\n", "node.hcl:9: listener[1].cluster_address: a node has one cluster port; write it in the first listener block"},
		{"two limits", minimal + "listener \"tcp\" {\n address = \"0.0.0.0:9\"\n max_request_size = \"1MiB\"\n tls_disable = true\n}\n", "node.hcl:9: listener[1].max_request_size: one limit holds for all listeners"},
		{"performance", "storage \"raft\" {\n path = \"/d\"\n performance = \"fast\"\n}\n", `node.hcl:3: storage.performance: performance "fast"; write "lan", "wan", or a number between 0.1 and 100`},
		{"performance out of range", "storage \"raft\" {\n path = \"/d\"\n performance = 0\n}\n", `performance "0"; write`},
		{"retry_join without an address", "storage \"raft\" {\n path = \"/d\"\n retry_join {\n }\n}\n", "node.hcl:3: storage.retry_join[0].leader_api_addr: missing"},
		{"retry_join without a scheme", "storage \"raft\" {\n path = \"/d\"\n retry_join {\n leader_api_addr = \"b:1\"\n }\n}\n", `node.hcl:4: storage.retry_join[0].leader_api_addr: "b:1" has no scheme`},
		{"static without key", minimal + "seal \"static\" {\n}\n", "node.hcl:7: seal: a static seal needs one of key_file and key_env"},
		{"key file that is not there", minimal + "seal \"static\" {\n key_file = \"/nowhere/key\"\n}\n", "node.hcl:8: seal.key_file: there is no file /nowhere/key"},
		{"key variable that is not there", minimal + "seal \"static\" {\n key_env = \"LOCUM_NO_SUCH_KEY\"\n}\n", "node.hcl:8: seal.key_env: the environment has no LOCUM_NO_SUCH_KEY"},
		{"seal to come", minimal + "seal \"awskms\" {\n}\n", `seal: "awskms": not in this version of Locum; write "static" or "shamir"`},
		{"second block", minimal + "ha {\n}\nha {\n}\n", "node.hcl:9: ha: a second block in one file, the first is on line 7; keep one"},
		{"node name", minimal + "node_name = \"a b\"\n", `node.hcl:7: node_name: "a b" is not a node name`},
		{"dead peers too soon", "storage \"raft\" {\n path = \"/d\"\n dead_peer_timeout = \"1s\"\n}\n", `write at least "1m", or "0" for never`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := complete(t, tc.text, host(nil))
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error %v, want Faults", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got:\n%v\nwant:\n%s", err, tc.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("shows a password: %v", err)
			}
		})
	}
}

// All faults at once.
func TestAllFaultsAreReported(t *testing.T) {
	_, err := complete(t, minimal+"log_level = \"x\"\nlog_format = \"y\"\napi_addr = \"z\"\n", host(nil))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 3 {
		t.Errorf("want 3 faults: %v", err)
	}
}

// JSON's faults have file and line too.
func TestJSONFaults(t *testing.T) {
	text := "{\n \"storage\": {\"raft\": {\"path\": \"/d\"}},\n \"listener\": {\"tcp\": {\"tls_disable\": true}},\n \"log_level\": \"loud\",\n \"ha\": {\"priority\": 5000}\n}"
	c, err := Parse("node.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	err = c.Complete(host(nil))
	for _, want := range []string{"node.json:4: log_level", "node.json:5: ha.priority"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := Parse("node.json", []byte(`{"api_adr": "x"}`)); err == nil || !strings.Contains(err.Error(), "node.json:1: ") {
		t.Errorf("an unknown key: %v", err)
	}
}

func TestPrivateFilesAreWatched(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "seal.key")
	if err := os.WriteFile(key, make([]byte, 32), 0o644); err != nil {
		t.Fatal(err)
	}
	text := minimal + "seal \"static\" {\n key_file = \"" + key + "\"\n}\n"
	if c := mustComplete(t, text, host(nil)); len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "chmod 600") {
		t.Errorf("a key that all can read: %q", c.Warnings)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := mustComplete(t, text, host(nil)); len(c.Warnings) != 0 {
		t.Errorf("a private key file: %q", c.Warnings)
	}
}

func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	writePair(t, cert, key, time.Now().Add(time.Hour))
	text := func(c, k, ca string) string {
		return "storage \"inmem\" {}\nlistener \"tcp\" {\n tls_cert_file = \"" + c + "\"\n tls_key_file = \"" + k + "\"\n tls_client_ca_file = \"" + ca + "\"\n}\n"
	}
	c := mustComplete(t, text(cert, key, cert), host(nil))
	if len(c.Warnings) != 0 || !strings.HasPrefix(c.APIAddr, "https://127.0.0.1:8400") {
		t.Errorf("warnings %q, api_addr %s", c.Warnings, c.APIAddr)
	}
	otherCert, otherKey := filepath.Join(dir, "c2.pem"), filepath.Join(dir, "k2.pem")
	writePair(t, otherCert, otherKey, time.Now().Add(-time.Minute))
	for _, bad := range []string{text(cert, otherKey, ""), text(key, key, ""), text(cert, key, key)} {
		if _, err := complete(t, bad, host(nil)); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if c := mustComplete(t, text(otherCert, otherKey, ""), host(nil)); len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "ran out") {
		t.Errorf("a certificate that ran out: %q", c.Warnings)
	}
}

func writePair(t *testing.T, certFile, keyFile string, end time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-time.Hour), NotAfter: end, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1B": 1, "64MiB": 64 << 20, "1.5KiB": 1536, "2kB": 2000, "3 GB": 3e9} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "12", "-1MiB", "MiB", "1mb", "9999999TiB", "NaNB", "InfB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, got)
		}
	}
	for size, want := range map[Size]string{0: "0", 1: "1B", 1536: "1536B", 2048: "2KiB", 64 << 20: "64MiB", 1 << 40: "1TiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d is written %s, want %s", int64(size), got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.hcl", minimal)
	f.Add("a.json", `{"storage":{"raft":{"path":"/d"}}}`)
	f.Fuzz(func(t *testing.T, name, text string) {
		c, err := Parse(name, []byte(text))
		if err != nil {
			return
		}
		_ = c.Validate() // must not panic
	})
}
