package cache

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// read is FromEnvironment with these variables, on a machine of this name.
func read(hostname string, variables map[string]string) (*Environment, error) {
	lookup := func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	}
	return FromEnvironment(lookup, func() (string, error) { return hostname, nil })
}

const threeHosts = "http://app-0.app:8402, http://app-1.app:8402, http://app-2.app:8402"

// three are the least variables that make a cluster.
func three(more ...string) map[string]string {
	v := map[string]string{"HA_MODE": "true", "HA_HOSTS": threeHosts, "CACHE_AUTH_TOKEN": "0123456789abcdef"}
	for i := 0; i < len(more); i += 2 {
		v[more[i]] = more[i+1]
	}
	return v
}

// TestEnvironmentSelf: the own entry is found by host name, app-1 in app-1.app and never in app-10.app (issue 6, 1).
func TestEnvironmentSelf(t *testing.T) {
	for _, c := range []struct{ hostname, hosts, overwrite, self string }{
		{"app-1", threeHosts, "", "app-1.app:8402"},
		{"APP-1", threeHosts, "", "app-1.app:8402"},
		{"app-1.app", threeHosts, "", "app-1.app:8402"},
		{"app-1", "http://app-10.app:8402\nhttp://app-1.app:8402\r\nhttp://app-11.app:8402\n", "", "app-1.app:8402"},
		{"app-1", "https://app-1:8402,,http://app-2:8402,", "", "app-1:8402"},
		{"other", threeHosts, "app-2", "app-2.app:8402"},
		{"app-0", threeHosts, "app-2.app", "app-2.app:8402"},
		{"app-0", threeHosts, "http://app-2.app:8402", "app-2.app:8402"},
		{"x", "http://127.0.0.1:7001,http://127.0.0.1:7002", "127.0.0.1:7002", "127.0.0.1:7002"},
		{"x", "http://10.0.0.1:8402,http://10.0.0.10:8402", "10.0.0.1", "10.0.0.1:8402"},
		{"x", "http://[fd00::1]:8402,http://[fd00:0::2]:8402", "fd00::2", "[fd00::2]:8402"},
		{"x", "http://[fd00::1]:8402,http://[fd00::1]:8403", "[fd00::1]:8403", "[fd00::1]:8403"},
		{"app-1", "http://app-1.app.:8402/,http://app-2.app:8402", "", "app-1.app:8402"},
	} {
		v := three("HA_HOSTS", c.hosts, "HOSTNAME_OVERWRITE", c.overwrite)
		e, err := read(c.hostname, v)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if e.Config.Self != c.self || !slices.Contains(e.Config.Hosts, c.self) {
			t.Errorf("%+v: self is %q of %q", c, e.Config.Self, e.Config.Hosts)
		}
		e.Config.EnsureDefaults()
		if err := e.Config.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestEnvironmentFaults: a mistake is an error that says what is wrong and what to do (issue 6, 1).
func TestEnvironmentFaults(t *testing.T) {
	for name, c := range map[string]struct {
		variables map[string]string
		want      []string
	}{
		"mode":          {map[string]string{"HA_MODE": "yes"}, []string{`HA_MODE="yes"`, "true or false"}},
		"no hosts":      {three("HA_HOSTS", " \n, "), []string{"HA_HOSTS is not set", "http://app-0.app:8402"}},
		"no own entry":  {three("HA_HOSTS", "http://app-10.app:8402,http://app-2.app:8402"), []string{`"app-1"`, "app-10.app:8402, app-2.app:8402", "HOSTNAME_OVERWRITE"}},
		"two own":       {three("HA_HOSTS", "http://app-1.app:8402,http://app-1.b:8402"), []string{`"app-1"`, "app-1.app:8402 and app-1.b:8402"}},
		"twice":         {three("HA_HOSTS", "http://app-1.app:8402,https://APP-1.app:8402"), []string{"twice"}},
		"no scheme":     {three("HA_HOSTS", "app-1.app:8402"), []string{"no scheme", "http://app-0.app:8402"}},
		"other scheme":  {three("HA_HOSTS", "redis://app-1.app:8402"), []string{"http or https"}},
		"no port":       {three("HA_HOSTS", "http://app-1.app"), []string{"no port"}},
		"port 0":        {three("HA_HOSTS", "http://app-1.app:0"), []string{"no port"}},
		"path":          {three("HA_HOSTS", "http://app-1.app:8402/x"), []string{"behind the port"}},
		"everywhere":    {three("HA_HOSTS", "http://0.0.0.0:8402"), []string{"nobody can connect"}},
		"no token":      {three("CACHE_AUTH_TOKEN", ""), []string{"CACHE_AUTH_TOKEN is not set"}},
		"tls":           {three("CACHE_TLS", "maybe"), []string{`CACHE_TLS="maybe"`}},
		"lone cert":     {three("CACHE_TLS_SERVER_CERT", "a.pem"), []string{"CACHE_TLS_SERVER_KEY", "both or none"}},
		"missing file":  {three("CACHE_TLS_SERVER_CERT", "none.pem", "CACHE_TLS_SERVER_KEY", "none.key"), []string{"none.pem"}},
		"ca alone":      {three("CACHE_TLS_CA_SERVER", "none.pem"), []string{"CACHE_TLS_SERVER_CERT is not set", "none.pem"}},
		"no duration":   {three("CACHE_ELECTION_TIMEOUT", "soon"), []string{"CACHE_ELECTION_TIMEOUT", "500ms"}},
		"too short":     {three("CACHE_KEEPALIVE_TIMEOUT", "1ms"), []string{"CACHE_KEEPALIVE_TIMEOUT", "out of range"}},
		"negative":      {three("CACHE_KEEPALIVE_INTERVAL", "-5s"), []string{"out of range"}},
		"lower > upper": {three("CACHE_RECONNECT_TIMEOUT_LOWER", "3s", "CACHE_RECONNECT_TIMEOUT_UPPER", "200"), []string{"3s", "200ms"}},
		"all at once":   {three("HA_HOSTS", "x", "CACHE_AUTH_TOKEN", "", "CACHE_TLS", "x"), []string{"HA_HOSTS", "CACHE_AUTH_TOKEN", "CACHE_TLS"}},
	} {
		_, err := read("app-1", c.variables)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%s: the token is in the error", name)
		}
	}
	if _, err := FromEnvironment(func(name string) (string, bool) { v, ok := three()[name]; return v, ok },
		func() (string, error) { return "", errors.New("no name") }); err == nil || !strings.Contains(err.Error(), "HOSTNAME_OVERWRITE") {
		t.Errorf("a machine without a name: %v", err)
	}
}

// TestEnvironmentValues: units of times, and what TLS becomes.
func TestEnvironmentValues(t *testing.T) {
	e, err := read("app-1", three("CACHE_ELECTION_TIMEOUT", "2", "CACHE_KEEPALIVE_INTERVAL", "750ms", "CACHE_RECONNECT_TIMEOUT_LOWER", "500", "CACHE_RECONNECT_TIMEOUT_UPPER", "2000"))
	if err != nil {
		t.Fatal(err)
	}
	c := e.Config
	if c.ElectionTimeout != 2*time.Second || c.KeepaliveInterval != 750*time.Millisecond || c.ReconnectLower != 500*time.Millisecond || c.ReconnectUpper != 2*time.Second {
		t.Errorf("times are %v %v %v %v", c.ElectionTimeout, c.KeepaliveInterval, c.ReconnectLower, c.ReconnectUpper)
	}
	if c.TLS.Disabled || c.TLS.Server != nil || len(e.Warnings) > 0 {
		t.Errorf("TLS %+v, warnings %q", c.TLS, e.Warnings)
	}
	e, err = read("app-1", three("CACHE_TLS", "false", "CACHE_AUTH_TOKEN", "short"))
	if err != nil || !e.Config.TLS.Disabled || len(e.Warnings) != 2 {
		t.Errorf("%+v %v", e, err)
	}
	e, err = read("app-1", map[string]string{"HA_HOSTS": "nonsense"})
	if err != nil || e.HA || len(e.Config.Hosts) > 0 {
		t.Errorf("without HA_MODE: %+v %v", e, err)
	}
}

// TestRauthy: a deployment's variables work as they stand ("coming from Rauthy's HA_MODE").
func TestRauthy(t *testing.T) {
	ca := newAuthority(t, "test authority")
	ca.leaf("redhac", "redhac.local")
	e, err := read("rauthy-1", map[string]string{
		"HA_MODE":                          "true",
		"HA_HOSTS":                         "http://rauthy-0.rauthy:8000 ,http://rauthy-1.rauthy:8000 ,http://rauthy-2.rauthy:8000",
		"CACHE_TLS":                        "true",
		"CACHE_TLS_SERVER_CERT":            ca.file("redhac.pem"),
		"CACHE_TLS_SERVER_KEY":             ca.file("redhac.key"),
		"CACHE_TLS_CLIENT_CERT":            ca.file("redhac.pem"),
		"CACHE_TLS_CLIENT_KEY":             ca.file("redhac.key"),
		"CACHE_TLS_CA_SERVER":              ca.file("ca.pem"),
		"CACHE_TLS_CA_CLIENT":              ca.file("ca.pem"),
		"CACHE_TLS_CLIENT_VALIDATE_DOMAIN": "redhac.local",
		"CACHE_TLS_SNI_OVERWRITE":          "",
		"CACHE_AUTH_TOKEN":                 "SuperSafeSecretToken1337",
		"CACHE_BUF_SERVER":                 "128",
		"CACHE_BUF_CLIENT":                 "128",
		"CACHE_KEEPALIVE_INTERVAL":         "5",
		"CACHE_KEEPALIVE_TIMEOUT":          "5",
		"CACHE_RECONNECT_TIMEOUT_LOWER":    "500",
		"CACHE_RECONNECT_TIMEOUT_UPPER":    "2000",
		"CACHE_ELECTION_TIMEOUT":           "2",
	})
	if err != nil {
		t.Fatal(err)
	}
	c := e.Config
	if c.Self != "rauthy-1.rauthy:8000" || len(c.Hosts) != 3 || c.AuthToken != "SuperSafeSecretToken1337" || len(e.Warnings) > 0 {
		t.Errorf("%q of %q, warnings %q", c.Self, c.Hosts, e.Warnings)
	}
	if c.TLS.Disabled || c.TLS.Server == nil || c.TLS.Server.ClientAuth != tls.RequireAndVerifyClientCert || c.TLS.Client == nil || c.TLS.Client.ServerName != "redhac.local" {
		t.Errorf("TLS: %+v", c.TLS)
	}
	if c.ElectionTimeout != 2*time.Second || c.KeepaliveInterval != 5*time.Second || c.ReconnectUpper != 2*time.Second {
		t.Errorf("times: %v %v %v", c.ElectionTimeout, c.KeepaliveInterval, c.ReconnectUpper)
	}
	if _, err := New(c); err != nil {
		t.Error(err)
	}
}

// spoken gathers what is logged.
type spoken struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *spoken) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *spoken) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// TestSaidAtStart: "three or five nodes are advised; 1, 2, 4 and 7 … say so at start", and so does a node without TLS ("said loudly").
func TestSaidAtStart(t *testing.T) {
	for n, want := range map[int]string{1: "loses everything", 2: "stops when either is lost", 3: "", 4: "survives the loss of 1, as one of 3 does", 5: "", 7: "each write waits for 4"} {
		hosts := freeHosts(t, 1)
		for i := 1; i < n; i++ {
			hosts = append(hosts, fmt.Sprintf("app-%d.invalid:8402", i))
		}
		env, err := read("app-0", three("HA_HOSTS", "http://"+strings.Join(hosts, ",http://"), "HOSTNAME_OVERWRITE", hosts[0], "CACHE_TLS", "false"))
		if err != nil {
			t.Fatal(err)
		}
		said := &spoken{}
		env.Config.Logger = slog.New(slog.NewTextHandler(said, nil))
		runNode(t, env.Config)
		last := "cache node starts"
		if n == 1 {
			last = "single host"
		}
		waitFor(t, 10*time.Second, "the node to start", func() bool {
			return strings.Contains(said.String(), last) && strings.Contains(said.String(), want)
		})
		if advised := strings.Contains(said.String(), "3 or 5 are advised"); advised != (want != "") {
			t.Errorf("%d hosts: %s", n, said)
		}
		if n > 1 && !strings.Contains(said.String(), "TLS is disabled") {
			t.Errorf("%d hosts: nothing is said of TLS: %s", n, said)
		}
	}
}
