package server

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// series are a node's metrics, by name and labels.
type series map[string]float64

func scrape(t *testing.T, n *testNode) series {
	t.Helper()
	all := series{}
	for line := range strings.Lines(string(n.raw("GET", "/v1/sys/metrics", "", nil, 200))) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if name += "}"; !ok {
			name, value, ok = strings.Cut(strings.TrimSpace(line), " ")
		}
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(line, "#") {
			all[name] = v
		}
	}
	return all
}

// sum adds up the series whose names begin so, and whether there is one.
func (s series) sum(prefix string) (total float64, there bool) {
	for name, v := range s {
		if strings.HasPrefix(name, prefix) {
			total, there = total+v, true
		}
	}
	return total, there
}

// measures looks at the metrics of a cluster that was used, stepped down and led by several of its nodes: each part of a node
// counts what it does (issue 2, point 8).
func measures(t *testing.T, nodes []*testNode) {
	t.Helper()
	var active, standby *testNode
	for _, n := range nodes {
		if code, _ := n.call("GET", "/v1/sys/active", "", nil); code == 200 {
			active = n
		} else {
			standby = n
		}
	}
	req, err := http.NewRequest("GET", standby.url+"/v1/secret/data/app", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-No-Request-Forwarding", "1")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Fatalf("without forwarding: %v %v", resp, err)
	}
	resp.Body.Close()

	all := map[*testNode]series{}
	everywhere := series{}
	for _, n := range nodes {
		all[n] = scrape(t, n)
		for name, v := range all[n] {
			everywhere[name] += v
		}
	}
	positive := func(of string, s series, prefixes ...string) {
		t.Helper()
		for _, prefix := range prefixes {
			if v, there := s.sum(prefix); !there || v <= 0 {
				t.Errorf("%s: %s is %v", of, prefix, v)
			}
		}
	}
	positive("the active node", all[active],
		"locum_is_active", "locum_active_node_known", "locum_term", "locum_lease_remaining_seconds", "locum_leaderships_total", "locum_activation_seconds_count",
		"locum_fence_raises_total", "locum_lock_operation_seconds_count",
		"locum_storage_operation_seconds_count{op=\"commit\"", "locum_storage_operation_seconds_count{op=\"raise_fence\"",
		"locum_barrier_operation_seconds_count{op=\"commit\"", "locum_barrier_key_encryptions",
		"locum_raft_is_leader", "locum_raft_commit_seconds_count", "locum_raft_log_write_seconds_count",
		"locum_request_seconds_count{", "locum_api_request_seconds_count", "locum_forward_connections", "locum_cluster_handshake_seconds_count", "locum_cluster_port_open")
	positive("a standby", all[standby],
		"locum_active_node_known", "locum_term", "locum_without_active_seconds_count", "locum_without_active_seconds_total",
		"locum_requests_redirected_total", "locum_forward_connections", "locum_raft_log_write_seconds_count", "locum_barrier_keyring_reloads_total")
	positive("all nodes", everywhere, "locum_leaderships_ended_total{planned=\"true\"}", "locum_lock_renewal_seconds_count{outcome=\"ok\"}", "locum_hold_seconds_count{served=\"true\"}")
	for way, n := range map[string]*testNode{"local": active, "forwarded": standby} {
		found := 0.0
		for name, v := range all[n] {
			if strings.HasPrefix(name, "locum_request_seconds_count{") && strings.Contains(name, `"`+way+`"`) {
				found += v
			}
		}
		if found == 0 {
			t.Errorf("%s counts no %s request", n.name, way)
		}
	}
	for _, name := range []string{"locum_is_active", "locum_raft_is_leader"} {
		if everywhere[name] != 1 {
			t.Errorf("%s adds up to %v", name, everywhere[name])
		}
	}
	if all[active]["locum_term"] != all[standby]["locum_term"] {
		t.Errorf("terms %v and %v", all[active]["locum_term"], all[standby]["locum_term"])
	}
	for _, name := range []string{"locum_fence_rejections_total", "locum_requests_repeated_total", "locum_lock_renewal_failures_total", "locum_held_requests", "locum_requests_unknown_total"} {
		if _, there := all[active][name]; !there {
			t.Errorf("there is no %s", name)
		}
	}
}
