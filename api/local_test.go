package api

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

var nodeStates = map[string]func() Status{
	"active": activeStatus, "standby": standbyStatus, "leaderless": leaderlessStatus, "sealed": sealedStatus, "empty": emptyStatus,
}

func newLocal(st Status, cfg Config) (http.Handler, *fakeNode) {
	node := &fakeNode{status: st}
	return Local(node, cfg, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "next") })), node
}

// P10: every status path answers in every state, from memory, without a token, with Vault's fields.
func TestStatusPathsGolden(t *testing.T) {
	for name, state := range nodeStates {
		h, _ := newLocal(state(), testConfig())
		for _, path := range []string{"sys/health", "sys/live", "sys/ready", "sys/active", "sys/standby", "sys/leader", "system/leader", "sys/seal-status", "sys/init"} {
			r := request("GET", "/v1/"+path, "")
			r.Header.Del("X-Vault-Token")
			w := do(h, r)
			golden(t, "status-"+strings.ReplaceAll(path, "/", "-")+"-"+name, w)
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s may be cached", path)
			}
			if w.Code >= 400 && !strings.HasSuffix(path, "health") {
				errorsOf(t, w)
			}
			if w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: 503 without Retry-After", path)
			}
			head := do(h, request("HEAD", "/v1/"+path, ""))
			if head.Code != w.Code {
				t.Errorf("HEAD %s in state %s: %d, GET: %d", path, name, head.Code, w.Code)
			}
		}
	}
}

func TestHealthCodes(t *testing.T) {
	removed := standbyStatus()
	removed.Removed = true
	single := standbyStatus()
	single.HAEnabled, single.Connected = false, false
	for _, c := range []struct {
		state Status
		query string
		want  int
	}{
		{activeStatus(), "", 200}, {activeStatus(), "activecode=299", 299}, {activeStatus(), "standbycode=204", 200},
		{standbyStatus(), "", 429}, {standbyStatus(), "standbyok=true", 200}, {standbyStatus(), "standbyok", 200},
		{standbyStatus(), "standbyok=false", 429}, {standbyStatus(), "standbyok=true&activecode=203", 203},
		{standbyStatus(), "standbycode=204", 204}, {standbyStatus(), "perfstandbyok=true", 429},
		{leaderlessStatus(), "", 474}, {leaderlessStatus(), "standbyok=true&perfstandbyok=true", 474},
		{leaderlessStatus(), "haunhealthycode=299", 299}, {single, "", 429},
		{removed, "", 530}, {removed, "removedcode=531", 531},
		{sealedStatus(), "", 503}, {sealedStatus(), "sealedcode=200&standbyok=true", 200}, {sealedStatus(), "uninitcode=200", 503},
		{emptyStatus(), "", 501}, {emptyStatus(), "uninitcode=299", 299}, {emptyStatus(), "sealedcode=200", 501},
		{activeStatus(), "standbycode=abc", 400}, {activeStatus(), "sealedcode=99", 400}, {activeStatus(), "drsecondarycode=x", 400},
		{activeStatus(), "standbyok=maybe", 400}, {activeStatus(), "activecode=", 400}, {activeStatus(), "unknown=1", 200},
	} {
		h, _ := newLocal(c.state, testConfig())
		for _, method := range []string{"GET", "HEAD"} {
			if w := call(h, method, "/v1/sys/health?"+c.query, ""); w.Code != c.want {
				t.Errorf("%s ?%s: %d, want %d: %s", method, c.query, w.Code, c.want, w.Body)
			}
		}
	}
}

// Load balancers probe with any of three methods.
func TestProbes(t *testing.T) {
	for _, c := range []struct {
		state Status
		codes [4]int // live, ready, active, standby
	}{
		{activeStatus(), [4]int{200, 200, 200, 503}},
		{standbyStatus(), [4]int{200, 200, 503, 200}},
		{sealedStatus(), [4]int{200, 503, 503, 503}},
		{emptyStatus(), [4]int{200, 503, 503, 503}},
	} {
		h, _ := newLocal(c.state, testConfig())
		for i, name := range []string{"live", "ready", "active", "standby"} {
			for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
				if w := call(h, method, "/v1/sys/"+name, ""); w.Code != c.codes[i] {
					t.Errorf("%s %s: %d, want %d", method, name, w.Code, c.codes[i])
				}
			}
		}
	}
	leaving := activeStatus()
	leaving.NotReady = "node is shutting down: send requests to another node"
	h, _ := newLocal(leaving, testConfig())
	w := call(h, "GET", "/v1/sys/ready", "")
	if w.Code != 503 || errorsOf(t, w).Errors[0] != leaving.NotReady {
		t.Errorf("a node that is leaving: %d %s", w.Code, w.Body)
	}
}

// Everything else is for another handler; a sealed node says what to do.
func TestLocalPassesOn(t *testing.T) {
	for name, state := range nodeStates {
		h, _ := newLocal(state(), testConfig())
		for _, path := range []string{"/v1/secret/data/a", "/v1/sys/step-down", "/v1/sys/healthy", "/v1/sys/health/", "/", "/v1/sys", "/v1/system/other"} {
			w := call(h, "GET", path, "")
			if name == "sealed" || name == "empty" {
				if w.Code != 503 {
					t.Errorf("%s %s: %d", name, path, w.Code)
				}
				if b := errorsOf(t, w); b.Processed != ProcessedNo || !strings.Contains(b.Errors[0], "locum operator") {
					t.Errorf("%s %s: %s", name, path, w.Body)
				}
			} else if w.Code != 200 || w.Body.String() != "next" {
				t.Errorf("%s %s: %d %s", name, path, w.Code, w.Body)
			}
		}
	}
}

func TestMetricsNeedAToken(t *testing.T) {
	cfg := testConfig()
	cfg.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "locum_is_active 1\n") })
	h, node := newLocal(standbyStatus(), cfg)
	if w := call(h, "GET", "/v1/sys/metrics?format=prometheus", ""); w.Code != 200 || w.Body.String() != "locum_is_active 1\n" {
		t.Errorf("with a token: %d %s", w.Code, w.Body)
	}
	bare := request("GET", "/v1/sys/metrics", "")
	bare.Header.Del("X-Vault-Token")
	if w := do(h, bare); w.Code != 403 || errorsOf(t, w).Errors[0] != "permission denied" {
		t.Errorf("without a token: %d %s", w.Code, w.Body)
	}
	node.authErr = Errorf(503, "the token cannot be checked now: no node is active")
	if w := call(h, "GET", "/v1/sys/metrics", ""); w.Code != 503 {
		t.Errorf("token that cannot be checked: %d", w.Code)
	}
	node.authErr = nil
	node.status = sealedStatus()
	if w := call(h, "GET", "/v1/sys/metrics", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "unauthenticated_metrics_access") {
		t.Errorf("sealed: %d %s", w.Code, w.Body)
	}
	cfg.OpenMetrics = true
	h, _ = newLocal(sealedStatus(), cfg)
	if w := do(h, bare); w.Code != 200 {
		t.Errorf("open metrics: %d", w.Code)
	}
}

// P12, interfaces §5: past the bound there is a clear error with Retry-After.
func TestScrapesAreBounded(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	cfg := testConfig()
	cfg.OpenMetrics = true
	cfg.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-leave })
	h, _ := newLocal(standbyStatus(), cfg)
	var wg sync.WaitGroup
	for range scrapesAtOnce {
		wg.Go(func() { call(h, "GET", "/v1/sys/metrics", "") })
		<-entered
	}
	if w := call(h, "GET", "/v1/sys/metrics", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(errorsOf(t, w).Errors[0], "under way") {
		t.Errorf("one more: %d %v %s", w.Code, w.Header(), w.Body)
	}
	close(leave)
	wg.Wait()
	wg.Go(func() { <-entered })
	if w := call(h, "GET", "/v1/sys/metrics", ""); w.Code != 200 {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
	wg.Wait()
}

func TestInit(t *testing.T) {
	for _, method := range []string{"POST", "PUT"} {
		h, node := newLocal(emptyStatus(), testConfig())
		w := call(h, method, "/v1/sys/init", `{"secret_shares":2,"secret_threshold":"2","stored_shares":0,"pgp_keys":null,"other":1}`)
		golden(t, "init", w)
		if node.initReq == nil || node.initReq.Shares != 2 || node.initReq.Threshold != 2 {
			t.Errorf("asked for %+v", node.initReq)
		}
	}
	for body, want := range map[string]string{
		`{"secret_shares":0,"secret_threshold":0}`: "secret_shares must be from 1 to 255, not 0",
		``: "secret_shares must be",
		`{"secret_shares":256,"secret_threshold":2}`:                "secret_shares must be from 1 to 255, not 256",
		`{"secret_shares":5,"secret_threshold":6}`:                  "secret_threshold must be from 1 to secret_shares (5), not 6",
		`{"secret_shares":5,"secret_threshold":1}`:                  "at least 2",
		`{"secret_shares":5,"secret_threshold":-1}`:                 "secret_threshold must be",
		`{"secret_shares":1,"secret_threshold":1,"pgp_keys":["x"]}`: "PGP keys are not supported",
		`{"secret_shares":"many"}`:                                  "a whole number is needed",
	} {
		h, node := newLocal(emptyStatus(), testConfig())
		w := call(h, "PUT", "/v1/sys/init", body)
		if w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
		if node.initReq != nil {
			t.Errorf("%s: was carried out", body)
		}
	}
	h, _ := newLocal(activeStatus(), testConfig())
	if w := call(h, "PUT", "/v1/sys/init", `{"secret_shares":1,"secret_threshold":1}`); w.Code != 400 || !strings.Contains(w.Body.String(), "already initialised") {
		t.Errorf("second init: %d %s", w.Code, w.Body)
	}
	static := emptyStatus()
	static.Seal = SealStatus{Type: "static"}
	h, node := newLocal(static, testConfig())
	if w := call(h, "PUT", "/v1/sys/init", `{}`); w.Code != 200 || node.initReq == nil {
		t.Errorf("static seal: %d %s", w.Code, w.Body)
	}
	node.initErr = errors.New("disk full at a path that is nobody's business")
	if w := call(h, "PUT", "/v1/sys/init", `{}`); w.Code != 500 || strings.Contains(w.Body.String(), "disk") {
		t.Errorf("inner error: %d %s", w.Code, w.Body)
	}
}

func TestUnseal(t *testing.T) {
	h, node := newLocal(sealedStatus(), testConfig())
	golden(t, "unseal-progress", call(h, "PUT", "/v1/sys/unseal", `{"key":"abcd"}`))
	if w := call(h, "POST", "/v1/sys/unseal", `{"key":"q80="}`); w.Code != 200 {
		t.Errorf("base64: %d %s", w.Code, w.Body)
	}
	if len(node.shares) != 2 || string(node.shares[0]) != "\xab\xcd" || string(node.shares[1]) != "\xab\xcd" {
		t.Errorf("shares %x", node.shares)
	}
	if w := call(h, "PUT", "/v1/sys/unseal", `{"reset":true}`); w.Code != 200 || node.resets != 1 {
		t.Errorf("reset: %d", w.Code)
	}
	const secret = "zz-not-a-key-zz"
	for body, want := range map[string]string{
		`{}`:                            "'key' must be specified",
		``:                              "the body is empty",
		`{"key":"` + secret + `"}`:      "valid hex or base64",
		`{"key":5}`:                     `the field \"key\" is a JSON number`,
		`{"key":"abcd","migrate":true}`: "leave migrate out",
		`[1]`:                           "a JSON object is needed",
		`{"key":"ab`:                    "not valid JSON",
	} {
		w := call(h, "PUT", "/v1/sys/unseal", body)
		if w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), secret) {
			t.Error("the answer repeats the key")
		}
	}
	node.unsealEr = Errorf(400, "this share is not one of this cluster's: check the key")
	if w := call(h, "PUT", "/v1/sys/unseal", `{"key":"abcd"}`); w.Code != 400 {
		t.Errorf("wrong share: %d", w.Code)
	}
	h, _ = newLocal(emptyStatus(), testConfig())
	if w := call(h, "PUT", "/v1/sys/unseal", `{"key":"abcd"}`); w.Code != 400 || !strings.Contains(w.Body.String(), "not initialised") {
		t.Errorf("empty node: %d %s", w.Code, w.Body)
	}
}

func TestJoin(t *testing.T) {
	h, node := newLocal(emptyStatus(), testConfig())
	w := call(h, "POST", "/v1/sys/storage/raft/join", `{"leader_api_addr":"https://a.example.com:8400","leader_ca_cert":"PEM","retry":true}`)
	golden(t, "raft-join", w)
	if node.join == nil || node.join.LeaderAPIAddr != "https://a.example.com:8400" || node.join.CACert != "PEM" || !node.join.Retry {
		t.Errorf("asked for %+v", node.join)
	}
	for body, want := range map[string]string{
		`{}`:                               "leader_api_addr is missing",
		`{"leader_api_addr":"a:8400"}`:     "no scheme",
		`{"auto_join":"provider=aws"}`:     "auto_join is not supported",
		`{"leader_api_addr":["https://"]}`: "is a JSON array",
	} {
		if w := call(h, "POST", "/v1/sys/storage/raft/join", body); w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}
