package lb

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// balancer is a load balancer that runs.
type balancer struct {
	kind    string // "haproxy" or "nginx"
	probe   string // the status path that it asks: "ready" or "active"
	url     string
	log     string
	process *cluster.Process
}

func (b *balancer) name() string { return b.kind + "/" + b.probe }

// kinds are the load balancers, and the configuration of each.
var kinds = map[string]string{"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}

// installed returns the kinds that can run here. Each missing one is a subtest that is skipped, or, where all must run,
// that fails.
func installed(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, kind := range []string{"haproxy", "nginx"} {
		if _, err := exec.LookPath(kind); err == nil {
			found = append(found, kind)
			continue
		}
		t.Run(kind, func(t *testing.T) {
			if os.Getenv("LOCUM_NO_SKIP") != "" {
				t.Fatalf("this must run here: %s is not installed", kind)
			}
			t.Skipf("%s is not installed", kind)
		})
	}
	if len(found) == 0 {
		t.Skip("there is no load balancer here")
	}
	return found
}

// config is the documented configuration with this test's addresses and places.
func config(t *testing.T, kind, probe, address, dir string, keys *certificates, nodes []*cluster.Node) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(cluster.Root(), "docs", "lb", kinds[kind]))
	ok(t, "the documented configuration", err)
	text := string(data)
	replace := func(old, with string) {
		if !strings.Contains(text, old) {
			t.Fatalf("%s does not say %q any more", kinds[kind], old)
		}
		text = strings.ReplaceAll(text, old, with)
	}
	for i, n := range nodes {
		replace(fmt.Sprintf("%c.example.com:8400", 'a'+i), tlsAddress(n))
	}
	replace("/etc/locum/ca.crt", keys.ca)
	switch kind {
	case "haproxy":
		replace("bind :443", "bind "+address)
		replace("/etc/haproxy/locum.pem", keys.both)
	case "nginx":
		replace("listen 443", "listen "+address)
		replace("/etc/nginx/locum.crt", keys.cert)
		replace("/etc/nginx/locum.key", keys.key)
		// Where nginx puts what it must, so that it also runs beside another one and without root.
		own := fmt.Sprintf("daemon off;\npid %s/pid;\nerror_log stderr;\n", dir)
		for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			replace("http {\n", fmt.Sprintf("http {\n%s_temp_path %s/%s;\n", what, dir, what))
		}
		text = own + text
	}
	if probe == "active" {
		replace("/v1/sys/ready", "/v1/sys/active")
	}
	return text
}

// start starts a load balancer and waits until it passes a request on to a node. It ends with the test.
func start(t *testing.T, kind, probe, address string, keys *certificates, nodes []*cluster.Node) *balancer {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, kinds[kind])
	ok(t, "its configuration", os.WriteFile(file, []byte(config(t, kind, probe, address, dir, keys, nodes)), 0o644))
	path, err := exec.LookPath(kind)
	ok(t, kind, err)
	args := []string{"-db", "-f", file}
	if kind == "nginx" {
		args = []string{"-p", dir, "-e", "stderr", "-c", file}
	}
	b := &balancer{kind: kind, probe: probe, url: "https://" + address, log: filepath.Join(dir, "log")}
	b.process, err = cluster.StartProcess(b.log, nil, path, args...)
	ok(t, "start of "+kind, err)
	t.Cleanup(func() { b.stop(t) })
	ctx := within(t, 15*time.Second)
	ok(t, b.name(), cluster.Poll(ctx, "it answers", func() error {
		if !b.process.Running() {
			data, _ := os.ReadFile(b.log)
			t.Fatalf("%s has ended: %s", b.name(), data)
		}
		answer := ask(ctx, keys.client(), http.MethodGet, b.url+"/v1/sys/"+probe, "", "")
		if answer.err == nil && answer.status != http.StatusOK {
			return fmt.Errorf("status %d", answer.status)
		}
		return answer.err
	}))
	return b
}

// stop ends it, by its process id. nginx ends its workers when it is asked to, and not when it is killed.
func (b *balancer) stop(t *testing.T) {
	if !b.process.Running() {
		return
	}
	_ = b.process.Stop(5 * time.Second)
	if t.Failed() {
		data, _ := os.ReadFile(b.log)
		t.Logf("the log of %s:\n%s", b.name(), data[max(0, len(data)-3000):])
	}
}

// within is a context that ends with the test or after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), d, context.DeadlineExceeded)
	t.Cleanup(cancel)
	return ctx
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
