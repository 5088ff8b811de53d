package main

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestCacheByEnvironment: "a clear error and exit 1 on a mistake" in the environment that sets a cache up.
func TestCacheByEnvironment(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const hosts = "HA_HOSTS=http://app-10.app:8402, http://app-2.app:8402"
	for name, one := range map[string]struct{ env, want []string }{
		"no own entry": {[]string{hosts, "HOSTNAME_OVERWRITE=app-1", "CACHE_AUTH_TOKEN=0123456789abcdef"}, []string{`"app-1"`, "app-10.app:8402, app-2.app:8402", "HOSTNAME_OVERWRITE"}},
		"no token":     {[]string{hosts, "HOSTNAME_OVERWRITE=app-2"}, []string{"CACHE_AUTH_TOKEN is not set"}},
		"no hosts":     {[]string{"CACHE_AUTH_TOKEN=0123456789abcdef"}, []string{"HA_HOSTS is not set"}},
		"port in use": {[]string{"HA_HOSTS=http://" + ln.Addr().String() + ",http://app-2.app:8402", "HOSTNAME_OVERWRITE=" + ln.Addr().String(),
			"CACHE_AUTH_TOKEN=0123456789abcdef", "CACHE_API_ADDRESS=127.0.0.1:0", "CACHE_RESP_ADDRESS=off"}, []string{"address already in use"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := exec.CommandContext(ctx, builtBinary(t), "server")
		cmd.Env = append([]string{"HA_MODE=true"}, one.env...)
		out, err := cmd.CombinedOutput()
		cancel()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("%s: exit %d\n%s", name, code, out)
		}
		for _, want := range one.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: %q is not said:\n%s", name, want, out)
			}
		}
		if strings.Contains(string(out), "0123456789abcdef") {
			t.Errorf("%s: the token is told:\n%s", name, out)
		}
	}
}
