package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/diagnose"
)

// step is one command against a real node: what is typed, and what it must print.
type step struct {
	args  string // with | between, so that there may be spaces
	stdin string
	fails bool
	want  string // a regular expression
}

func (s *serverRun) steps(t *testing.T, token string, steps []step) {
	t.Helper()
	for _, st := range steps {
		code, out := s.locum(t, token, st.stdin, strings.Split(st.args, "|")...)
		if fails := code != 0; fails != st.fails || !regexp.MustCompile(`(?s)`+st.want).MatchString(out) {
			t.Errorf("locum %s: exit %d, want %s\n%s", strings.ReplaceAll(st.args, "|", " "), code, st.want, out)
		}
		if !st.fails && strings.Contains(st.args, "-format=json") && !json.Valid([]byte(out)) {
			t.Errorf("locum %s prints no JSON:\n%s", st.args, out)
		}
	}
}

// Entries, policies and tokens as a user of Vault's command line knows them, on a real node.
func TestEntriesPoliciesTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs a server")
	}
	port := freePorts(t)
	config := filepath.Join(t.TempDir(), "locum.hcl")
	writeConfig(t, config, port, "")
	s := startServer(t, config, fmt.Sprintf("http://127.0.0.1:%d", port))
	await(t, "the node answers", func() bool { code, _ := s.locum(t, "", "", "status"); return code == 2 })
	var secrets initOutput
	if err := json.Unmarshal([]byte(s.must(t, "", "", "operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json")), &secrets); err != nil {
		t.Fatal(err)
	}
	root := secrets.RootToken
	s.must(t, "", secrets.UnsealKeysB64[0]+"\n", "operator", "unseal")
	await(t, "it serves", func() bool { code, _ := s.locum(t, root, "", "kv", "put", "app/x", "a=1"); return code == 0 })
	s.steps(t, root, entrySteps)
	s.steps(t, root, policySteps)
	tokens(t, s, root)
	diagnoses(t, s, root, config)
	s.stop(t)
}

var entrySteps = []step{
	{args: "kv|put|app/x|a=2|b=two", want: `Version +2`},
	{args: "kv|patch|-cas=2|app/x|c=three", want: `Version +3`},
	{args: "kv|patch|-cas=2|app/x|c=four", fails: true, want: `error: check-and-set`},
	{args: "kv|patch|-remove-data|a|app/x|-", stdin: `{"b":null,"n":{"d":1}}`, want: `Version +4`},
	{args: "kv|get|-mount=secret|app/x", want: `c +three.*n +\{"d":1\}`},
	{args: "kv|get|-mount=kv2|app/x", fails: true, want: `there is no mount "kv2".*hint: `},
	{args: "kv|patch|app/x", fails: true, want: `nothing to change`},
	{args: "kv|patch|nothing|a=1", fails: true, want: `there is no entry nothing`},
	{args: "kv|rollback|-version=2|-format=json|app/x", want: `"version": 5`},
	{args: "kv|get|-field=b|app/x", want: `^two\n$`},
	{args: "kv|rollback|-version=77|app/x", fails: true, want: `there is no version 77 of app/x`},
	{args: "kv|rollback|app/x", fails: true, want: `no version.*hint: `},
	{args: "kv|delete|-versions=4,5|app/x", want: `Deleted`},
	{args: "kv|get|app/x", fails: true, want: `error: version 5 of app/x was deleted at`},
	{args: "kv|undelete|-versions=5|app/x", want: `No longer deleted`},
	{args: "kv|undelete|app/x", fails: true, want: `no versions`},
	{args: "kv|get|app/x|-format=json", want: `"b": "two"`},
	{args: "kv|destroy|-versions=1|app/x", want: `Destroyed`},
	{args: "kv|get|-version=1|app/x", fails: true, want: `version 1 of app/x was destroyed`},
	{args: "kv|metadata|put|-max-versions=7|-cas-required|-custom-metadata|owner=me|-custom-metadata|team=a=b|-delete-version-after=720h|app/x", want: `Set: app/x`},
	{args: "kv|put|app/x|a=1", fails: true, want: `check-and-set`},
	{args: "kv|metadata|get|app/x", want: `Current Version +5.*Max Versions +7.*CAS Required +true.*720h0m0s.*Custom: owner +me.*Custom: team +a=b.*1 .*destroyed`},
	{args: "kv|metadata|patch|-remove-custom-metadata|owner|-cas-required=false|app/x", want: `Changed: app/x`},
	{args: "kv|metadata|get|-format=json|app/x", want: `"custom_metadata": \{\s+"team": "a=b"\s+\}`},
	{args: "kv|metadata|get|-field=max_versions|app/x", want: `^7\n$`},
	{args: "kv|metadata|get|-field=nothing|app/x", fails: true, want: `no field "nothing".*hint: there are: cas_required`},
	{args: "kv|metadata|patch|app/x", fails: true, want: `nothing to change`},
	{args: "kv|metadata|put|-custom-metadata|x|app/x", fails: true, want: `is not KEY=VALUE`},
	{args: "kv|metadata|get|nothing", fails: true, want: `there is no entry nothing`},
	{args: "kv|list|-format=json", want: `"app/"`},
	{args: "kv|metadata|delete|app/x", want: `Removed with all its versions`},
	{args: "kv|get|app/x", fails: true, want: `there is no entry app/x`},
}

var policySteps = []step{
	{args: "policy|write|app|-", stdin: "path \"secret/data/app/*\" { capabilities = [\"read\", \"create\", \"update\"] }\n", want: `Policy app is written`},
	{args: "policy|write|bad|-", stdin: "path {", fails: true, want: `error: `},
	{args: "policy|write|app|no-such-file", fails: true, want: `error: reading the policy`},
	{args: "policy|read|app", want: `secret/data/app/\*`},
	{args: "policy|read|-format=json|app", want: `"policy": "path`},
	{args: "policy|read|nothing", fails: true, want: `there is no policy "nothing".*hint: `},
	{args: "policy|list", want: `app\n.*default\n.*root`},
	{args: "policy|list|-format=json", want: `"app"`},
	{args: "policy|write|old|-", stdin: "path \"x\" { capabilities = [\"deny\"] }", want: `written`},
	{args: "policy|delete|old", want: `Policy old is gone`},
	{args: "policy|read|old", fails: true, want: `there is no policy`},
}

// tokens: made with a policy, used, described, renewed and ended; and no secret has to stand in an argument.
func tokens(t *testing.T, s *serverRun, root string) {
	t.Helper()
	var made struct {
		Auth struct {
			ClientToken string `json:"client_token"`
			Accessor    string `json:"accessor"`
		} `json:"auth"`
	}
	out := s.must(t, root, "", "token", "create", "-policy=app", "-ttl=1h", "-display-name=ci", "-metadata", "who=me", "-format=json")
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Auth.ClientToken == "" {
		t.Fatalf("%v: %s", err, out)
	}
	token, accessor := made.Auth.ClientToken, made.Auth.Accessor
	s.steps(t, token, []step{
		{args: "kv|put|app/y|a=1", want: `Version +1`},
		{args: "kv|put|other/y|a=1", fails: true, want: `permission denied`},
		{args: "token|lookup", want: `accessor +` + accessor + `.*display_name +token-ci.*orphan +false.*policies +app, default.*renewable +true.*meta_who +me`},
		{args: "token|lookup|-field=accessor", want: "^" + accessor},
		{args: "token|capabilities|secret/data/app/z", want: `^create, read, update\n$`},
		{args: "token|capabilities|-format=json|sys/step-down", want: `"deny"`},
		{args: "token|renew|-format=json", want: `"renewable": true`},
		{args: "policy|list", fails: true, want: `permission denied`},
	})
	s.steps(t, root, []step{
		{args: "token|lookup|-|-format=json", stdin: token + "\n", want: `"accessor": "` + accessor},
		{args: "token|lookup|-accessor=" + accessor, want: `id +\S*\s|ttl +(59m|1h)`},
		{args: "token|lookup|" + token, want: `^warning: other users.*` + accessor},
		{args: "token|lookup|nonsense", fails: true, want: `error: `},
		{args: "token|lookup|-accessor=x|" + token, fails: true, want: `one of them is enough`},
		{args: "token|renew|-increment=10m|-accessor=" + accessor, want: `token_duration +10m0s`},
		{args: "token|capabilities|-accessor=" + accessor + "|secret/data/app/z", want: `^create, read, update\n$`},
		{args: "token|create|-policy=app|-use-limit=2|-orphan|-field=token", want: `^\S+\n$`},
		{args: "token|create|-period=24h|-explicit-max-ttl=48h|-no-default-policy|-renewable=false", want: `token +\S+\n.*token_policies`},
		{args: "token|create|-metadata=x", fails: true, want: `is not KEY=VALUE`},
		{args: "token|create|-ttl=soon", fails: true, want: `error: `},
		{args: "token|revoke", fails: true, want: `no token.*hint: `},
		{args: "token|revoke|-self|-accessor=" + accessor, fails: true, want: `one of them`},
		{args: "token|revoke|-mode=path|-", stdin: "x", fails: true, want: `mode "path" is not known`},
		{args: "token|revoke|-mode=orphan|-accessor=" + accessor, fails: true, want: `needs the token itself`},
		{args: "token|revoke|-", stdin: token + "\n", want: `The token is revoked`},
	})
	s.steps(t, token, []step{{args: "kv|get|app/y", fails: true, want: `permission denied`}})
	own := strings.TrimSpace(s.must(t, root, "", "token", "create", "-policy=app", "-field=token"))
	s.steps(t, root, []step{{args: "token|revoke|-mode=orphan|-", stdin: own, want: `revoked`}})
	own = strings.TrimSpace(s.must(t, root, "", "token", "create", "-policy=app", "-field=token"))
	s.steps(t, own, []step{
		{args: "token|revoke|-self", want: `revoked`},
		{args: "token|lookup", fails: true, want: `permission denied`},
	})
	if strings.Contains(s.output(), token) || strings.Contains(s.output(), own) {
		t.Error("a token is in the node's log")
	}
}

// diagnoses: a node that runs is found to be well, from the outside and with the rights of a member. How fast the disk is
// depends on what else runs here, so it does not count.
func diagnoses(t *testing.T, s *serverRun, root, config string) {
	t.Helper()
	code, out := s.locum(t, root, "", "operator", "diagnose", "-config", config)
	for _, want := range []string{"is in use by Locum, which answers", "this node's cluster port, and takes raft", "it is unsealed, and active",
		"it is reached at api_addr", "it is reached at cluster_addr", "is in use by process"} {
		if !strings.Contains(out, want) {
			t.Errorf("the diagnosis lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, root) {
		t.Errorf("colours or secrets:\n%s", out)
	}
	again, out := s.locum(t, "", "", "operator", "diagnose", "-config", config, "-format=json", "-timeout=2s")
	var report diagnose.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.NodeName != "node-a" {
		t.Fatalf("%v: %s", err, out)
	}
	for _, f := range report.Findings {
		if f.Level == diagnose.Error && f.Check != diagnose.CheckDisk {
			t.Errorf("%+v", f)
		}
	}
	if want := map[diagnose.Level]int{diagnose.OK: 0, diagnose.Warning: 2, diagnose.Error: 1}[report.Result]; again != want {
		t.Errorf("exit %d, then %d for %q", code, again, report.Result)
	}
	s.steps(t, "", []step{
		{args: "operator|diagnose|-config|" + config + "|-quiet|-cluster-advertise-addr=http://127.0.0.1:1", fails: true, want: `error +at api_addr.*do: .*\n\d errors?, `},
		{args: "operator|diagnose|-config|" + config + ".not|-format=json", fails: true, want: `"result": "error"`},
		{args: "operator|diagnose", fails: true, want: `error: no configuration\nhint: `},
	})
}
