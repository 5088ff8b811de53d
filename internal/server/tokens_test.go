package server

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/internal/config"
)

// P3, P5: tokens and policies are everybody's: made at one node, good at all, and after another node became active.
func TestTokensAcrossNodes(t *testing.T) {
	nodes := testCluster(t, 3)
	for _, n := range nodes {
		n.start()
	}
	root := initialise(t, nodes[0])
	ready(t, nodes...)
	voters(t, nodes[0], root, 3)
	want := func(n *testNode, code int, token, method, path string, body any) map[string]any {
		t.Helper()
		got, answer := n.call(method, "/v1/"+path, token, body)
		if got != code {
			t.Errorf("%s: %s %s: %d %v, want %d", n.name, method, path, got, answer, code)
		}
		return answer
	}
	made := func(answer map[string]any) string {
		t.Helper()
		block, _ := answer["auth"].(map[string]any)
		token, _ := block["client_token"].(string)
		if token == "" {
			t.Fatalf("no token: %v", answer)
		}
		return token
	}
	policy := `path "secret/data/app/*" { capabilities = ["create", "read"] }
path "auth/token/create" { capabilities = ["update"] }`
	want(nodes[1], 204, root, "PUT", "sys/policies/acl/app", map[string]any{"policy": policy})
	app := made(want(nodes[2], 200, root, "POST", "auth/token/create", map[string]any{"policies": []string{"app"}, "ttl": "1h"}))
	child := made(want(nodes[1], 200, app, "POST", "auth/token/create", map[string]any{}))
	counted := made(want(nodes[1], 200, app, "POST", "auth/token/create", map[string]any{"num_uses": 4}))
	value := map[string]any{"data": map[string]any{"a": 1}}
	for i, n := range nodes {
		path := fmt.Sprintf("secret/data/app/%d", i)
		want(n, 200, child, "POST", path, value)
		want(n, 403, child, "POST", path, value) // it is there now, and may not be changed
		want(n, 200, counted, "GET", path, nil)
		want(n, 403, child, "GET", "secret/data/other", nil)
	}
	short := made(want(nodes[1], 200, root, "POST", "auth/token/create", map[string]any{"policies": []string{"app"}, "ttl": "3s"}))
	stepDown(t, nodes[1], root, "10s")
	eventually(t, "a token runs out at the next active node", func() bool {
		code, _ := nodes[1].call("GET", "/v1/auth/token/lookup-self", short, nil)
		return code == 403
	})
	want(nodes[0], 200, child, "GET", "secret/data/app/0", nil)
	want(nodes[2], 200, counted, "GET", "secret/data/app/0", nil) // the last use
	want(nodes[0], 403, counted, "GET", "secret/data/app/0", nil)
	want(nodes[0], 204, app, "POST", "auth/token/revoke-self", nil)
	for _, n := range nodes {
		want(n, 403, app, "GET", "auth/token/lookup-self", nil)
		want(n, 403, child, "GET", "secret/data/app/0", nil)
	}
}

// shamirCluster starts two nodes that open with two of three shares.
func shamirCluster(t *testing.T) (nodes []*testNode, root string, keys []any) {
	t.Helper()
	nodes = testCluster(t, 2)
	for _, n := range nodes {
		n.config.Seal = config.Seal{Type: "shamir"}
		n.start()
	}
	code, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{"secret_shares": 3, "secret_threshold": 2})
	if code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	root, keys = answer["root_token"].(string), answer["keys"].([]any)
	for _, n := range nodes {
		eventually(t, n.name+" can be unsealed", func() bool {
			_, answer := n.call("GET", "/v1/sys/seal-status", "", nil)
			return answer["t"] == 2.0
		})
		n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": keys[0]})
		n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": keys[1]})
		ready(t, n)
	}
	voters(t, nodes[0], root, 2)
	return nodes, root, keys
}

// A root token is made by a quorum of shares; a change of the active node cancels the attempt, and who lost all tokens
// begins again.
func TestGenerateRoot(t *testing.T) {
	nodes, root, keys := shamirCluster(t)
	ask := func(n *testNode, want int, method, path string, body any) map[string]any {
		t.Helper()
		code, answer := n.call(method, "/v1/sys/generate-root/"+path, "", body)
		if code != want {
			t.Errorf("%s %s: %d %v, want %d", method, path, code, answer, want)
		}
		return answer
	}
	first := ask(nodes[1], 200, "PUT", "attempt", nil)
	ask(nodes[0], 400, "PUT", "attempt", nil)
	if first["started"] != true || first["required"] != 2.0 || first["otp_length"] != 32.0 {
		t.Errorf("%v", first)
	}
	if given := ask(nodes[1], 200, "PUT", "update", map[string]any{"nonce": first["nonce"], "key": keys[0]}); given["progress"] != 1.0 || given["complete"] != false || given["otp"] != nil {
		t.Errorf("%v", given)
	}
	ask(nodes[1], 400, "PUT", "update", map[string]any{"nonce": first["nonce"], "key": keys[0]})
	ask(nodes[1], 400, "PUT", "update", map[string]any{"nonce": "other", "key": keys[1]})
	stepDown(t, nodes[0], root, "10s")
	ask(nodes[0], 400, "PUT", "update", map[string]any{"nonce": first["nonce"], "key": keys[1]})
	if now := ask(nodes[0], 200, "GET", "attempt", nil); now["started"] != false || now["progress"] != 0.0 {
		t.Errorf("the attempt outlived the leadership: %v", now)
	}
	if code, _ := nodes[0].call("POST", "/v1/auth/token/revoke-self", root, nil); code != 204 {
		t.Fatal(code)
	}
	otp := strings.Repeat("x", auth.SecretLen)
	ask(nodes[0], 400, "PUT", "attempt", map[string]any{"otp": "short"})
	second := ask(nodes[0], 200, "PUT", "attempt", map[string]any{"otp": otp})
	ask(nodes[1], 204, "DELETE", "attempt", nil)
	ask(nodes[1], 400, "PUT", "update", map[string]any{"nonce": second["nonce"], "key": keys[1]})
	third := ask(nodes[0], 200, "PUT", "attempt", map[string]any{"otp": otp})
	ask(nodes[1], 200, "PUT", "update", map[string]any{"nonce": third["nonce"], "key": keys[2]})
	done := ask(nodes[0], 200, "PUT", "update", map[string]any{"nonce": third["nonce"], "key": keys[1]})
	hidden, err := base64.RawStdEncoding.DecodeString(fmt.Sprint(done["encoded_token"]))
	if err != nil || done["complete"] != true || len(hidden) != len(otp) {
		t.Fatalf("%v, %v", done, err)
	}
	subtle.XORBytes(hidden, hidden, []byte(otp))
	for _, n := range nodes {
		if code, answer := n.call("GET", "/v1/sys/ha-status", string(hidden), nil); code != 200 {
			t.Errorf("the new root token at %s: %d %v", n.name, code, answer)
		}
		if code, _ := n.call("GET", "/v1/sys/ha-status", root, nil); code != 403 {
			t.Errorf("the old root token at %s: %d", n.name, code)
		}
	}
	ask(nodes[0], 400, "PUT", "update", map[string]any{"nonce": third["nonce"], "key": keys[1]})
}

// The key shares are replaced once the new ones were given back, and not before; a change of the active node cancels it.
func TestRekey(t *testing.T) {
	nodes, root, keys := shamirCluster(t)
	ask := func(n *testNode, want int, method, path string, body any) map[string]any {
		t.Helper()
		code, answer := n.call(method, "/v1/sys/rekey/"+path, "", body)
		if code != want {
			t.Errorf("%s %s: %d %v, want %d", method, path, code, answer, want)
		}
		return answer
	}
	wish := map[string]any{"secret_shares": 4, "secret_threshold": 3}
	begin := func() (st map[string]any, fresh []any) {
		t.Helper()
		st = ask(nodes[1], 200, "PUT", "init", wish)
		ask(nodes[0], 200, "PUT", "update", map[string]any{"nonce": st["nonce"], "key": keys[2]})
		done := ask(nodes[1], 200, "PUT", "update", map[string]any{"nonce": st["nonce"], "key": keys[0]})
		fresh, _ = done["keys"].([]any)
		if len(fresh) != 4 || done["verification_required"] != true || done["verification_nonce"] == nil {
			t.Fatalf("%v", done)
		}
		return done, fresh
	}
	ask(nodes[0], 400, "PUT", "init", map[string]any{"secret_shares": 2, "secret_threshold": 3})
	st, fresh := begin()
	ask(nodes[0], 400, "PUT", "init", wish)
	ask(nodes[0], 200, "PUT", "verify", map[string]any{"nonce": st["verification_nonce"], "key": fresh[0]})
	stepDown(t, nodes[0], root, "10s")
	ask(nodes[0], 400, "PUT", "verify", map[string]any{"nonce": st["verification_nonce"], "key": fresh[1]})
	if now := ask(nodes[0], 200, "GET", "init", nil); now["started"] != false {
		t.Errorf("the attempt outlived the leadership: %v", now)
	}
	begin()
	ask(nodes[0], 204, "DELETE", "init", nil)
	st, fresh = begin()
	ask(nodes[1], 400, "PUT", "verify", map[string]any{"nonce": "other", "key": fresh[0]})
	ask(nodes[1], 200, "PUT", "verify", map[string]any{"nonce": st["verification_nonce"], "key": fresh[0]})
	if again := ask(nodes[1], 200, "DELETE", "verify", nil); again["progress"] != 0.0 || again["nonce"] == st["verification_nonce"] {
		t.Errorf("%v", again)
	} else {
		st["verification_nonce"] = again["nonce"]
	}
	for i, key := range fresh[1:] {
		if given := ask(nodes[1], 200, "PUT", "verify", map[string]any{"nonce": st["verification_nonce"], "key": key}); (given["complete"] == true) != (i == 2) {
			t.Errorf("%d: %v", i, given)
		}
	}
	put(t, nodes[0], root, "a", "1") // lets a standby's copy know of what was written before
	for _, n := range nodes {
		n.end()
		n.start()
	}
	for _, n := range nodes {
		_, answer := n.call("GET", "/v1/sys/seal-status", "", nil)
		if answer["t"] != 3.0 || answer["n"] != 4.0 {
			t.Fatalf("%s: %v", n.name, answer)
		}
		for i, key := range []any{keys[0], keys[1], keys[2]} {
			if code, _ := n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": key}); (code == 200) != (i < 2) {
				t.Errorf("old shares: %d", code)
			}
		}
		for _, key := range fresh[:3] {
			n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": key})
		}
	}
	ready(t, nodes...)
	expect(t, nodes[0], root, "a", "1")
}
