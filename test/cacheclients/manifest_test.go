package cacheclients

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/test/cluster"
)

// manifest is docs/cache/statefulset.yaml, as far as these tests look at it: its lines.
type manifest string

// all returns what stands in the place of the expression's group, each once.
func (m manifest) all(expression string) []string {
	var found []string
	for _, match := range regexp.MustCompile(expression).FindAllStringSubmatch(string(m), -1) {
		if !slices.Contains(found, match[1]) {
			found = append(found, match[1])
		}
	}
	return found
}

// TestStatefulSet: the manifest sets up what it says ("a StatefulSet manifest with probes that need no tuning"): each pod finds its own
// entry, the ports are those that the nodes listen on, what selects pods selects these, and the probes tell of real nodes what Kubernetes
// is to be told: a pod that has lost the quorum gets no traffic, and is not restarted for it.
func TestStatefulSet(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(cluster.Root(), "docs", "cache", "statefulset.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m := manifest(text)
	only := func(expression string) string {
		t.Helper()
		found := m.all(expression)
		if len(found) != 1 {
			t.Fatalf("%s: %q", expression, found)
		}
		return found[0]
	}
	env := map[string]string{
		"HA_MODE": only(`name: HA_MODE, value: "(.*)"`), "HA_HOSTS": strings.Join(m.all(`(?m)^ +(http://.*)$`), "\n"),
		"CACHE_RESP_ADDRESS":  only(`name: CACHE_RESP_ADDRESS, value: "(.*)"`),
		"CACHE_AUTH_TOKEN":    only(`CACHE_AUTH_TOKEN: "(.*)"`),
		"CACHE_RESP_PASSWORD": only(`CACHE_RESP_PASSWORD: "(.*)"`),
	}
	pods := m.all(`(http://app-\d+\.app:8402)`)
	if replicas := only(`replicas: (\d+)`); replicas != fmt.Sprint(len(pods)) {
		t.Errorf("%s replicas, %d hosts", replicas, len(pods))
	}
	for i, pod := range pods {
		e, err := cache.FromEnvironment(func(name string) (string, bool) { v, ok := env[name]; return v, ok },
			func() (string, error) { return fmt.Sprintf("%s-%d", only(`serviceName: (\S+)`), i), nil })
		if err != nil || "http://"+e.Config.Self != pod || len(e.Config.Hosts) != len(pods) {
			t.Errorf("pod %d is %+v, %v", i, e, err)
		}
	}
	for name, port := range map[string]string{"cache": "8402", "resp": "8479", "http": "8400"} { // of HA_HOSTS, of CACHE_RESP_ADDRESS, the default
		if found := m.all(`name: ` + name + `, (?:containerPort|port): (\d+)`); len(found) != 1 || found[0] != port {
			t.Errorf("port %s is %q, not %s", name, found, port)
		}
	}
	if labels := m.all(`(?:selector|matchLabels|labels): \{(.*)\}`); len(labels) != 1 {
		t.Errorf("not all select the same pods: %q", labels)
	}
	probes(t, only(`(?s)readinessProbe:\s+httpGet: \{path: (\S+),`), only(`(?s)livenessProbe:\s+httpGet: \{path: (\S+),`))
}

// probes asks real nodes, with a quorum and without.
func probes(t *testing.T, ready, live string) {
	t.Helper()
	c := cluster.NewCache(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	probe := func(path string) int {
		limit, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(limit, http.MethodGet, "http://"+c.Nodes[0].API+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	becomes := func(status int) {
		t.Helper()
		err := cluster.Poll(ctx, fmt.Sprintf("%s answers %d", ready, status), func() error {
			if got := probe(live); got != http.StatusOK {
				t.Fatalf("%s answers %d: Kubernetes would restart it", live, got)
			}
			if got := probe(ready); got != status {
				return fmt.Errorf("it answers %d", got)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	becomes(http.StatusOK)
	c.Nodes[1].Kill()
	c.Nodes[2].Kill()
	becomes(http.StatusServiceUnavailable)
	if err := c.Start(1); err != nil {
		t.Fatal(err)
	}
	becomes(http.StatusOK)
}
