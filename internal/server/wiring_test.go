package server

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/metrics"
)

// What an application block says reaches what does it. Each of its settings stands here.
func TestApplicationIsWired(t *testing.T) {
	const minute = time.Minute
	a := config.Application{
		Name: "orders", Command: []string{"./orders"}, Environment: map[string]string{"A": "1"}, WorkingDir: "/srv", User: "nobody", Group: "daemon",
		Upstream: "http://127.0.0.1:9000", Standby: "warm",
		Health:   config.Health{Path: "/h", TCP: "127.0.0.1:1", Command: []string{"c"}, Interval: 2 * minute, Timeout: 3 * minute, Failures: 4},
		OnActive: []string{"on"}, OnStandby: []string{"off"}, HookTimeout: 5 * minute, RoleFile: "/role", StartTimeout: 6 * minute, StopSignal: "SIGQUIT",
		StopTimeout: 7 * minute, Restarts: 8, RestartWindow: 9 * minute, Containment: "cgroup", RepeatMethods: []string{"PUT"}, Idempotency: "application",
		IdempotencyTTL: 10 * minute, IdempotencyMaxSize: 11, Mode: "redirect", Address: "https://orders.example.com", ProxyProtocol: true, MaxRequestSize: 12,
		TLSCertFile: "/cert", TLSKeyFile: "/key", TLSClientCAFile: "/ca", XForwardedForAuthorizedAddrs: []string{"10.0.0.0/8"},
		UpstreamCAFile: filepath.Join(t.TempDir(), "ca.pem"),
	}
	app := httptest.NewTLSServer(nil)
	defer app.Close()
	cert := app.Certificate()
	if err := os.WriteFile(a.UpstreamCAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{NodeName: "node-a", Applications: []config.Application{a}}
	u := &unsealed{Server: &Server{id: "id", cfg: c, log: slog.New(slog.DiscardHandler), guardian: &guardianship{}, metrics: metrics.New("")}}
	run, err := u.applicationConfig(&a)
	if err != nil {
		t.Fatal(err)
	}
	up, err := u.upstreamConfig(&a)
	if err != nil {
		t.Fatal(err)
	}
	way, keyed := u.appRouterConfig(&a), u.keyedConfig(&a)
	door := (&serving{s: u.Server, cfg: a}).listenerConfig("127.0.0.1:1")
	_, untrusted := cert.Verify(x509.VerifyOptions{Roots: up.TLS.RootCAs, DNSName: "example.com"})
	wired := map[string]bool{
		"Name":        run.Name == "orders" && keyed.Application == "orders",
		"Command":     slices.Equal(run.Command, a.Command),
		"Environment": slices.Contains(run.Env, "A=1"),
		"WorkingDir":  run.Dir == "/srv", "User": run.User == "nobody", "Group": run.Group == "daemon",
		"Upstream": run.Health.Upstream == a.Upstream && up.URL == a.Upstream,
		"Standby":  run.Warm,
		"Health": run.Health.Path == "/h" && run.Health.TCP == "127.0.0.1:1" && slices.Equal(run.Health.Command, a.Health.Command) &&
			run.Health.Interval == 2*minute && run.Health.Timeout == 3*minute && run.Health.Failures == 4,
		"OnActive": slices.Equal(run.OnActive, a.OnActive), "OnStandby": slices.Equal(run.OnStandby, a.OnStandby), "HookTimeout": run.HookTimeout == 5*minute,
		"RoleFile": run.RoleFile == "/role", "StartTimeout": run.StartTimeout == 6*minute, "StopSignal": run.StopSignal == syscall.SIGQUIT,
		"StopTimeout": run.StopTimeout == 7*minute, "Restarts": run.Restarts == 8, "RestartWindow": run.RestartWindow == 9*minute,
		"Containment": run.Containment == "cgroup", "RepeatMethods": slices.Equal(way.RepeatMethods, a.RepeatMethods),
		"Idempotency": keyed.Own, "IdempotencyTTL": keyed.TTL == 10*minute, "IdempotencyMaxSize": keyed.MaxSize == 11,
		"Listen": door.Address == "127.0.0.1:1", "TLSCertFile": door.TLS.CertFile == "/cert", "TLSKeyFile": door.TLS.KeyFile == "/key",
		"TLSClientCAFile": door.TLS.ClientCAFile == "/ca", "UpstreamCAFile": untrusted == nil,
		"XForwardedForAuthorizedAddrs": slices.Equal(door.Forwarders.Prefixes, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}),
		"Mode":                         way.Mode == forward.ModeRedirect, "Address": way.APIAddr == a.Address, "ProxyProtocol": up.ProxyProtocol, "MaxRequestSize": way.MaxBody == 12,
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Application]()) {
		if ok, known := wired[f.Name]; !ok {
			t.Errorf("%s does not reach what does it (looked at: %v)", f.Name, known)
		}
	}
}
