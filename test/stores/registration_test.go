package stores

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// registered returns the tags and the status of each node in Consul's catalog, by name.
func registered(addr string) (map[string]string, error) {
	resp, err := http.Get("http://" + addr + "/v1/health/service/locum?consistent")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all []struct {
		Service struct {
			Tags []string
			Meta map[string]string
		}
		Checks []struct{ CheckID, Status string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, s := range all {
		for _, check := range s.Checks {
			if strings.HasSuffix(check.CheckID, ":ready") {
				found[s.Service.Meta["node_name"]] = strings.Join(s.Service.Tags, ",") + " " + check.Status
			}
		}
	}
	return found, nil
}

// Issue 4, point 8: the nodes of a cluster stand in Consul's catalog as what they are, true within a second of a change, and
// are gone when they have ended.
func TestServiceRegistration(t *testing.T) {
	wanted(t, "consul")
	consul := Consul(t, false)
	options := NewSite(t, consul, nil).Options()
	options.Extra = func(*cluster.Node) string {
		return fmt.Sprintf("service_registration \"consul\" {\n  address = %q\n}\n", consul.Addr)
	}
	c := cluster.New(t, options)
	shows := func(what string, limit time.Duration, want map[string]string) {
		t.Helper()
		var got map[string]string
		var err error
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for deadline := time.Now().Add(limit); ; <-ticker.C {
			if got, err = registered(consul.Addr); err == nil && maps.Equal(got, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the catalog shows %v (%v), want %v within %v", what, got, err, want, limit)
			}
		}
	}
	roles := func(active *cluster.Node, but ...*cluster.Node) map[string]string {
		want := map[string]string{}
		for _, n := range c.Nodes {
			switch {
			case slices.Contains(but, n):
			case n == active:
				want[n.Name] = "active passing"
			default:
				want[n.Name] = "standby passing"
			}
		}
		return want
	}
	active, _ := c.Active(t.Context())
	shows("at first", 2*time.Second, roles(active))
	if err := c.StepDown(t.Context(), c.Nodes[0], "", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	next, err := c.WaitActive(t.Context(), active)
	if err != nil {
		t.Fatal(err)
	}
	shows("after a step-down", 2*time.Second, roles(next))
	if err := next.Stop(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	last, err := c.WaitActive(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	shows("after a node has ended", 2*time.Second, roles(last, next))
	http.DefaultClient.CloseIdleConnections()
}
