package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locum-ha/locum/client"
)

// A root token from key shares, and new key shares, by the commands that a user types: no share and no token is shown but where
// it must be.
func TestKeyShares(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs a server")
	}
	port := freePorts(t)
	config := filepath.Join(t.TempDir(), "locum.hcl")
	writeConfig(t, config, port, "")
	s := startServer(t, config, fmt.Sprintf("http://127.0.0.1:%d", port))
	await(t, "the node answers", func() bool { code, _ := s.locum(t, "", "", "status"); return code == 2 })
	decode := func(out string, into any) {
		t.Helper()
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatal(err, out)
		}
	}
	var secrets initOutput
	decode(s.must(t, "", "", "operator", "init", "-key-shares=3", "-key-threshold=2", "-format=json"), &secrets)
	old := secrets.UnsealKeysB64
	for _, share := range old[:2] {
		s.must(t, "", share, "operator", "unseal")
	}
	await(t, "it serves", func() bool {
		code, _ := s.locum(t, secrets.RootToken, "", "kv", "put", "app/x", "a=1")
		return code == 0
	})

	// No token at all is needed: the shares are proof enough.
	s.steps(t, "", []step{
		{args: "operator|generate-root", stdin: old[0], fails: true, want: `no attempt is under way.*generate-root -init`},
		{args: "operator|generate-root|-status", want: `Started +false`},
	})
	var g client.RootGeneration
	decode(s.must(t, "", "", "operator", "generate-root", "-init", "-format=json"), &g)
	otp := g.OTP
	s.steps(t, "", []step{
		{args: "operator|generate-root|-nonce|another", stdin: old[0], fails: true, want: `is ` + g.Nonce + `, not another`},
		{args: "operator|generate-root", stdin: old[0], want: `Progress +1 of 2`},
		{args: "operator|generate-root|-status", want: `Progress +1 of 2`},
	})
	decode(s.must(t, "", old[2], "operator", "generate-root", "-format=json"), &g)
	if !g.Complete || g.EncodedToken == "" {
		t.Fatalf("after the last share: %+v", g)
	}
	var made struct{ Token string }
	decode(s.must(t, "", otp, "operator", "generate-root", "-decode", g.EncodedToken, "-format=json"), &made)
	s.must(t, made.Token, "", "policy", "list")
	s.steps(t, "", []step{{args: "operator|generate-root|-decode|" + g.EncodedToken, stdin: "short", fails: true, want: "different lengths"}})

	s.steps(t, "", []step{
		{args: "operator|rekey", stdin: old[0], fails: true, want: `no attempt is under way`},
		{args: "operator|rekey|-verify", stdin: old[0], fails: true, want: `no new shares wait`},
		{args: "operator|rekey|-init|-key-shares=2|-key-threshold=2", want: `New Shares +2`},
		{args: "operator|rekey", stdin: old[1], want: `Progress +1 of 2`},
	})
	var r client.Rekey
	decode(s.must(t, "", old[0], "operator", "rekey", "-format=json"), &r)
	if !r.Complete || len(r.KeysBase64) != 2 {
		t.Fatal("after the last share in use there are no new ones")
	}
	s.steps(t, "", []step{
		{args: "operator|rekey", stdin: old[0], fails: true, want: `rekey -verify`},
		{args: "operator|rekey|-verify", stdin: r.KeysBase64[0], want: `1 of 2`},
		{args: "operator|rekey|-verify", stdin: r.KeysBase64[1], want: `in force`},
	})
	s.must(t, made.Token, "", "operator", "seal")
	s.locum(t, "", old[0], "operator", "unseal") // refused, or of no use
	if _, out := s.locum(t, "", old[1], "operator", "unseal"); strings.Contains(out, "Sealed +false") {
		t.Error("the old shares open the node")
	}
	s.locum(t, "", "", "operator", "unseal", "-reset")
	for _, share := range r.KeysBase64 {
		s.must(t, "", share, "operator", "unseal")
	}
	await(t, "it serves under the new shares", func() bool {
		code, _ := s.locum(t, made.Token, "", "kv", "get", "app/x")
		return code == 0
	})
	s.stop(t)
}
