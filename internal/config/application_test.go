package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestApplication(t *testing.T) {
	c, err := complete(t, minimal+`
application "orders" {
  command     = ["./orders", "--port", "9000"]
  environment = { MODE = "live" }
  upstream    = "h2c://127.0.0.1:9000"
  listen      = "0.0.0.0:8080"
  standby     = "warm"
  health {
    path     = "/healthz"
    interval = "2s"
  }
  on_active   = ["./promote", "http://127.0.0.1:9000/promote"]
  stop_signal = "SIGINT"
}
application "legacy" {
  upstream = "tcp://127.0.0.1:1883"
  listen   = ["0.0.0.0:1884", "[::1]:1885"]
}
`, host(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := NewApplication("orders")
	want.Command, want.Environment = []string{"./orders", "--port", "9000"}, map[string]string{"MODE": "live"}
	want.Upstream, want.Listen, want.Standby = "h2c://127.0.0.1:9000", OneOrMore{"0.0.0.0:8080"}, "warm"
	want.Health.Path, want.Health.Interval = "/healthz", 2*time.Second
	want.OnActive, want.StopSignal = []string{"./promote", "http://127.0.0.1:9000/promote"}, "SIGINT"
	if diff := cmp.Diff(want, c.Applications[0]); diff != "" {
		t.Error(diff)
	}
	if got := c.Applications[1].Listen; len(got) != 2 {
		t.Errorf("listen: %q", got)
	}
}

// A command without an upstream gets a port of its own, so that nobody needs to choose one.
func TestApplicationPort(t *testing.T) {
	c, err := complete(t, minimal+"application \"a\" {\n command = [\"x\"]\n}\n", host(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Applications[0].Upstream, "http://127.0.0.1:") {
		t.Errorf("upstream %q", c.Applications[0].Upstream)
	}
}

func TestApplicationFaults(t *testing.T) {
	for _, tc := range []struct{ body, want string }{
		{``, "neither a command nor an upstream"},
		{`upstream = "127.0.0.1:9000"`, "has no scheme"},
		{`upstream = "tcp://127.0.0.1"`, "has no port"},
		{`upstream = "http://127.0.0.1:9000/base"`, "requests keep their own"},
		{`upstream = "unix://app.sock"`, "not absolute"},
		{"command = [\"a\"]\n listen = \"8080\"", `write it such as "0.0.0.0:8080"`},
		{"command = [\"a\"]\n listen = \"0.0.0.0:8400\"", "port 8400 is used by listener[0].address too"},
		{"command = [\"a\"]\n standby = \"hot\"", `"cold" or "warm"`},
		{"command = [\"a\"]\n environment = { LOCUM_TERM = \"1\" }", "LOCUM_TERM is set by Locum"},
		{"command = [\"a\"]\n on_active = [\"\"]", "an empty command"},
		{"command = [\"a\"]\n stop_signal = \"TERM\"", "SIGTERM"},
		{"command = [\"a\"]\n stop_timeout = \"1m\"", "less than drain_timeout (15s) + 1m10s"},
		{"command = [\"a\"]\n user = \"nobody-of-this-name\"", "there is no user"},
		{"command = [\"a\"]\n health {\n path = \"/x\"\n tcp = \"127.0.0.1:1\"\n}", "more than one of path, tcp and command"},
		{"upstream = \"tcp://127.0.0.1:1\"\n health {\n path = \"/x\"\n}", "upstream is no HTTP"},
		{"upstream = \"tcp://127.0.0.1:1\"\n user = \"root\"", "there is none"},
		{"upstream = \"tcp://127.0.0.1:1\"\n mode = \"redirect\"", "mode: for HTTP, and upstream takes bytes"},
		{"command = [\"a\"]\n restarts = -1", "write 0 to step down at the first failure"},
		{"command = [\"a\"]\n role_file = \"role\"", "is not absolute"},
		{"command = [\"a\"]\n tls_client_ca_file = \"/x\"", "clients show certificates with TLS only"},
	} {
		_, err := complete(t, minimal+"application \"a\" {\n "+tc.body+"\n}\n", host(nil))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tc.body, err, tc.want)
		}
	}
}

// Hooks that take as long as they may can outlast the hold: that is said, and not refused, since they rarely do.
func TestHooksBeyondTheHold(t *testing.T) {
	for _, tc := range []struct {
		hooks, timeout string
		warned         bool
	}{
		{`[]`, "10s", false},
		{`["a"]`, "10s", true},
		{`["a"]`, "5s", false},
		{`["a", "b"]`, "5s", true},
	} {
		text := minimal + "application \"orders\" {\n command = [\"x\"]\n listen = \"127.0.0.1:8080\"\n upstream = \"http://127.0.0.1:9000\"\n" +
			" on_standby = " + tc.hooks + "\n hook_timeout = \"" + tc.timeout + "\"\n}\n"
		c, err := complete(t, text, host(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(c.Warnings, "\n"), "forwarding.hold_timeout is 40s"); got != tc.warned {
			t.Errorf("on_standby = %s, hook_timeout = %s: warnings %q", tc.hooks, tc.timeout, c.Warnings)
		}
	}
}

// The tokens of two applications are kept apart by policies, whose names know no upper and lower case.
func TestApplicationNames(t *testing.T) {
	_, err := complete(t, minimal+"application \"orders\" {\n command = [\"x\"]\n}\napplication \"Orders\" {\n command = [\"x\"]\n}\n", host(nil))
	if err == nil || !strings.Contains(err.Error(), `a second application "Orders"`) {
		t.Errorf("%v", err)
	}
}
