package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/internal/join"
	"github.com/locum-ha/locum/seal"
	"github.com/locum-ha/locum/test/cluster"
)

// planted are secrets by their names, in every form in which they could be printed.
type planted map[string][]string

// bytes plants a key.
func (p planted) bytes(name string, secret []byte) {
	p[name] = append(p[name], string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
		base64.StdEncoding.EncodeToString(secret), base64.RawStdEncoding.EncodeToString(secret),
		base64.URLEncoding.EncodeToString(secret), fmt.Sprint(secret), strings.Trim(fmt.Sprint(secret), "[]"))
}

// text plants a word.
func (p planted) text(name, secret string) {
	if secret == "" {
		panic("an empty secret is found everywhere")
	}
	p[name] = append(p[name], secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)))
}

// search looks for all of them where none belongs.
func (p planted) search(t *testing.T, where, text string) {
	t.Helper()
	for name, forms := range p {
		for _, form := range forms {
			if i := strings.Index(text, form); i >= 0 {
				line := text[strings.LastIndexByte(text[:i], '\n')+1:]
				line, _, _ = strings.Cut(line, "\n")
				t.Errorf("%s shows the %s: %.300s", where, name, line)
				break
			}
		}
	}
}

// descendants are the processes below pid, itself among them.
func descendants(pid int) []int {
	all := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		data, _ := os.ReadFile(task)
		for field := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, descendants(child)...)
			}
		}
	}
	return all
}

// asked sends one request and returns all of its answer.
func asked(ctx context.Context, t *testing.T, method, url, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var head bytes.Buffer
	if err := resp.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, head.String() + string(data)
}

// word is a random secret that stands in no log by chance.
func word(name string) string { return "planted-" + name + "-" + rand.Text() }

// "No secret in any log, error, metric or process list (a test plants some and looks for them)": a cluster at log level debug with
// an application, through its whole life; every wrong request that carries a secret.
func TestPlantedSecrets(t *testing.T) {
	application := word("application-environment")
	c := cluster.New(t, cluster.Options{Performance: calm.Performance, LogLevel: "debug", Extra: func(n *cluster.Node) string {
		return fmt.Sprintf("cache {\n  resp_address = \"\"\n}\napplication \"app\" {\n  command = [\"sleep\", \"1000\"]\n  environment = { PLANTED = %q }\n  upstream = %q\n}\n", application, n.URL())
	}})
	ctx := within(t, 2*time.Minute)
	p := planted{}
	p.text("root token", c.Token)
	rootKey := theRootKey(ctx, t, c, p)
	p.bytes("root key", rootKey)
	for _, purpose := range []string{join.Purpose} {
		derived, err := barrier.Derive(rootKey, purpose)
		if err != nil {
			t.Fatal(err)
		}
		p.bytes("join secret", derived)
	}
	value, lockSecret, cacheValue := word("value"), word("lock"), word("cache")
	p.text("entry's value", value)
	p.text("lock's secret", lockSecret)
	p.text("cache's value", cacheValue)
	tokens := useSecrets(ctx, t, c, value, lockSecret, cacheValue)
	for name, token := range tokens {
		p.text(name, token)
	}
	for _, n := range c.Nodes {
		for what, answer := range wrongRequests(ctx, t, n, c.Token, p, value) {
			p.search(t, fmt.Sprintf("%s's answer to %s", n.Name, what), answer)
		}
	}
	if err := c.StepDown(ctx, c.Nodes[0], "", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	active, err := c.WaitActive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lookAtProcesses(t, c, p, application)
	active.Kill()
	if _, err := c.WaitActive(ctx, active); err != nil {
		t.Fatal(err)
	}
	if err := active.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	p.text("application's environment", application)
	for _, n := range c.Nodes {
		for _, path := range []string{"metrics", "health", "leader", "seal-status"} {
			_, answer := asked(ctx, t, "GET", n.URL()+"/v1/sys/"+path, "", "")
			p.search(t, n.Name+"'s "+path, answer)
		}
		log, err := os.ReadFile(n.LogPath())
		if err != nil {
			t.Fatal(err)
		}
		for _, need := range []string{"Api Address", "DEBUG", "following the active node"} {
			if !strings.Contains(string(log), need) {
				t.Errorf("%s's log has no %q: it is not the log that this test is about", n.Name, need)
			}
		}
		p.search(t, n.Name+"'s log", string(log))
	}
}

// theRootKey unwraps it with the seal's key, which is planted, too.
func theRootKey(ctx context.Context, t *testing.T, c *cluster.Cluster, p planted) []byte {
	t.Helper()
	key, err := seal.ReadKeyFile(filepath.Join(c.Nodes[0].Dir, "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	p.bytes("static seal key", key[:])
	var challenge join.Challenge
	if err := c.Call(ctx, c.Nodes[0], "POST", "/v1/sys/storage/raft/bootstrap/challenge", join.NewRequest("id", "name", "127.0.0.1:1"), &challenge); err != nil {
		t.Fatal(err)
	}
	rootKey, err := seal.NewStatic(key).Unwrap(ctx, challenge.RootKey)
	if err != nil {
		t.Fatal(err)
	}
	return rootKey
}

// useSecrets puts secrets where they belong, and returns the tokens that it made.
func useSecrets(ctx context.Context, t *testing.T, c *cluster.Cluster, value, lockSecret, cacheValue string) map[string]string {
	t.Helper()
	n := c.Nodes[1]
	must := func(method, path, body string) string {
		code, answer := asked(ctx, t, method, n.URL()+path, c.Token, body)
		if code/100 != 2 {
			t.Fatalf("%s %s: %d %s", method, path, code, answer)
		}
		return answer[strings.Index(answer, "\r\n{")+2:]
	}
	must("POST", "/v1/secret/data/app", fmt.Sprintf(`{"data":{"password":%q}}`, value))
	must("POST", "/v1/secret/metadata/app", fmt.Sprintf(`{"custom_metadata":{"note":%q}}`, value))
	must("PUT", "/v1/sys/policies/acl/app", `{"policy":"path \"secret/*\" { capabilities = [\"read\"] }"}`)
	must("POST", "/v1/locks/report", fmt.Sprintf(`{"holder":"me","secret":%q,"ttl":"10s"}`, lockSecret))
	if err := cluster.Poll(ctx, "the cache takes a value", func() error { // its hosts have to find one another first
		if code, answer := asked(ctx, t, "PUT", n.URL()+"/v1/cache/codes/app", c.Token, cacheValue); code != http.StatusNoContent {
			return fmt.Errorf("%d %s", code, answer)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	for _, name := range []string{"client token", "revoked token"} {
		var made struct {
			Auth struct {
				Token string `json:"client_token"`
			} `json:"auth"`
		}
		if err := json.Unmarshal([]byte(must("POST", "/v1/auth/token/create", `{"policies":["app"],"ttl":"1h"}`)), &made); err != nil {
			t.Fatal(err)
		}
		tokens[name] = made.Auth.Token
	}
	must("POST", "/v1/auth/token/lookup", fmt.Sprintf(`{"token":%q}`, tokens["client token"]))
	must("POST", "/v1/auth/token/revoke", fmt.Sprintf(`{"token":%q}`, tokens["revoked token"]))
	return tokens
}

// wrongRequests are refused, each for another reason, and carry secrets in all places where a client may put one by mistake.
func wrongRequests(ctx context.Context, t *testing.T, n *cluster.Node, token string, p planted, value string) map[string]string {
	t.Helper()
	secrets := []string{token, value, p["client token"][0], p["static seal key"][1], p["root key"][3], p["lock's secret"][0]}
	answers := map[string]string{}
	for i, s := range secrets {
		for _, r := range []struct{ what, method, path, token, body string }{
			{"broken JSON", "POST", "/v1/secret/data/app", token, `{"data":{"password":"` + s},
			{"JSON of another type", "POST", "/v1/secret/data/app", token, `{"data":"` + s + `"}`},
			{"an unknown option", "POST", "/v1/secret/data/app", token, `{"options":{"cas":"` + s + `"},"data":{"a":"` + s + `"}}`},
			{"a CAS that does not hold", "POST", "/v1/secret/data/app", token, `{"options":{"cas":99},"data":{"a":"` + s + `"}}`},
			{"no permission", "POST", "/v1/secret/data/app", p["client token"][0], `{"data":{"a":"` + s + `"}}`},
			{"a token that is none", "GET", "/v1/secret/data/app", s + "x", ""},
			{"a revoked token", "GET", "/v1/secret/data/app", p["revoked token"][0], ""},
			{"a lookup of what is no token", "POST", "/v1/auth/token/lookup", token, `{"token":"` + s + `x"}`},
			{"a renewal of another type", "POST", "/v1/auth/token/renew", token, `{"token":["` + s + `"]}`},
			{"an unseal key", "POST", "/v1/sys/unseal", "", `{"key":"` + s + `"}`},
			{"a wrong unseal body", "POST", "/v1/sys/unseal", "", `{"key":{"a":"` + s + `"}}`},
			{"a second init", "POST", "/v1/sys/init", "", `{"secret_shares":"` + s + `"}`},
			{"generate-root", "POST", "/v1/sys/generate-root/update", "", `{"key":"` + s + `","nonce":"` + s + `"}`},
			{"rekey", "POST", "/v1/sys/rekey/update", "", `{"key":"` + s + `","nonce":"` + s + `"}`},
			{"a join", "POST", "/v1/sys/storage/raft/join", token, `{"leader_api_addr":"http://user:` + s + `@127.0.0.1:1"}`},
			{"a join's answer", "POST", "/v1/sys/storage/raft/bootstrap/answer", "", `{"proof":"` + s + `"}`},
			{"a policy of another type", "PUT", "/v1/sys/policies/acl/bad", token, `{"policy":["` + s + `"]}`},
			{"a lock of another", "POST", "/v1/locks/report", token, `{"holder":"you","secret":"` + s + `-and-more-of-it","ttl":"1s"}`},
			{"a lock's secret of another type", "POST", "/v1/locks/report", token, `{"secret":{"a":"` + s + `"}}`},
			{"a cache's time", "POST", "/v1/cache/none/key?ttl=" + s, token, s},
			{"a snapshot", "POST", "/v1/sys/storage/raft/snapshot", token, s},
			{"a header", "GET", "/v1/secret/data/app?version=" + s, token, ""},
		} {
			code, answer := asked(ctx, t, r.method, n.URL()+r.path, r.token, r.body)
			if code < 400 && r.what != "an unseal key" && r.what != "a header" {
				t.Errorf("%s was answered %d", r.what, code)
			}
			if code >= 400 {
				answers[fmt.Sprint(r.what, " ", i)] = answer
			}
		}
	}
	return answers
}

// lookAtProcesses reads the command lines and environments of everything that runs. The application is told its own token and what its
// configuration gives it, and nobody else is.
func lookAtProcesses(t *testing.T, c *cluster.Cluster, p planted, application string) {
	t.Helper()
	sawApplication := false
	for _, n := range c.Nodes {
		for _, pid := range descendants(n.Process().Pid()) {
			cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil {
				continue // it has ended
			}
			environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			name := fmt.Sprintf("process %q of %s", bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}), n.Name)
			p.search(t, "the command line of "+name, string(cmdline))
			p.search(t, "the environment of "+name, string(environ))
			isApplication := bytes.HasPrefix(cmdline, []byte("sleep"))
			sawApplication = sawApplication || isApplication
			if bytes.Contains(environ, []byte(application)) != isApplication {
				t.Errorf("%s has the application's environment: %t, want %t", name, !isApplication, isApplication)
			}
		}
	}
	if !sawApplication {
		t.Error("the application does not run: nothing was looked at")
	}
}

// The same for a node that is unsealed with shares, and for a seal's key and a token that come by the environment: shares right, wrong and too
// few, a new root token, new shares. The key in the environment reaches no process that the node starts.
func TestPlantedShares(t *testing.T) {
	dir, ctx := t.TempDir(), within(t, time.Minute)
	binary, err := cluster.Binary()
	if err != nil {
		t.Fatal(err)
	}
	p := planted{}
	sealKey := seal.NewKey()
	url := "http://127.77.0.9:18400"
	config := fmt.Sprintf("node_name = \"n1\"\napi_addr = %q\nlog_level = \"debug\"\nlistener \"tcp\" {\n  address = \"127.77.0.9:18400\"\n  tls_disable = true\n}\nstorage \"raft\" {\n  path = %q\n}\n",
		url, filepath.Join(dir, "data"))
	path, logPath := filepath.Join(dir, "locum.hcl"), filepath.Join(dir, "log")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := cluster.StartProcess(logPath, nil, binary, "server", "-config", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Kill)
	if err := cluster.Poll(ctx, "the node answers", func() error {
		_, err := http.Get(url + "/v1/sys/seal-status")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var made struct {
		Keys  []string `json:"keys"`
		Keys2 []string `json:"keys_base64"`
		Token string   `json:"root_token"`
	}
	call := func(method, path, token, body string) (int, string) {
		code, answer := asked(ctx, t, method, url+path, token, body)
		return code, answer[strings.Index(answer, "\r\n{")+2:]
	}
	_, answer := call("PUT", "/v1/sys/init", "", `{"secret_shares":3,"secret_threshold":2}`)
	if err := json.Unmarshal([]byte(answer), &made); err != nil || len(made.Keys) != 3 {
		t.Fatalf("init: %s", answer)
	}
	p.text("root token", made.Token)
	for _, share := range made.Keys {
		raw, err := hex.DecodeString(share)
		if err != nil {
			t.Fatal(err)
		}
		p.bytes("share", raw)
	}
	if err := cluster.Poll(ctx, "the node is active", func() error {
		if code, answer := call("GET", "/v1/sys/health", "", ""); code != 200 {
			return fmt.Errorf("%d %s", code, answer)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, code int, answer string) {
		if code < 400 {
			t.Errorf("%s was answered %d", what, code)
		}
		p.search(t, "the answer to "+what, answer)
	}
	code, answer := call("PUT", "/v1/sys/seal", made.Token, "")
	if code != 204 {
		t.Fatalf("seal: %d %s", code, answer)
	}
	_, answer = call("PUT", "/v1/sys/unseal", "", fmt.Sprintf(`{"key":%q}`, made.Keys[0]))
	p.search(t, "the progress of an unsealing", answer)
	wrong := []byte(made.Keys[1])
	wrong[10] ^= 1
	code, answer = call("PUT", "/v1/sys/unseal", "", fmt.Sprintf(`{"key":%q}`, wrong))
	refused("a wrong share", code, answer)
	code, answer = call("PUT", "/v1/sys/unseal", "", fmt.Sprintf(`{"key":%q}`, made.Keys[2]+"zz"))
	refused("a share that is none", code, answer)
	for _, share := range made.Keys2[:2] {
		_, answer = call("PUT", "/v1/sys/unseal", "", fmt.Sprintf(`{"key":%q}`, share))
		p.search(t, "the progress of an unsealing", answer)
	}
	_, answer = call("PUT", "/v1/sys/generate-root/attempt", "", `{}`)
	p.search(t, "the progress of generate-root", answer[:min(len(answer), 2000)])
	for _, path := range []string{"/v1/sys/generate-root/update", "/v1/sys/rekey/update"} {
		code, answer = call("PUT", path, "", fmt.Sprintf(`{"key":%q,"nonce":"wrong"}`, made.Keys[0]))
		refused(path, code, answer)
	}
	if err := n.Stop(20 * time.Second); err != nil {
		t.Errorf("stop: %v", err)
	}

	// The environment: a static seal on a second node, with an application.
	p.bytes("static seal key", sealKey[:])
	second := strings.Replace(strings.Replace(config, `path = "`+filepath.Join(dir, "data"), `path = "`+filepath.Join(dir, "data2"), 1), "n1", "n2", 1) +
		"seal \"static\" {\n  key_env = \"PLANTED_KEY\"\n}\napplication \"app\" {\n  command = [\"sleep\", \"1000\"]\n}\n"
	if err := os.WriteFile(path, []byte(second), 0o644); err != nil {
		t.Fatal(err)
	}
	n, err = cluster.StartProcess(logPath, []string{"PLANTED_KEY=" + hex.EncodeToString(sealKey[:])}, binary, "server", "-config", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Kill)
	if err := cluster.Poll(ctx, "the node is initialised", func() error {
		r, err := http.NewRequestWithContext(ctx, "PUT", url+"/v1/sys/init", strings.NewReader("{}"))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}); err != nil {
		t.Fatal(err)
	}
	var environ []byte
	if err := cluster.Poll(ctx, "the application runs", func() error {
		for _, pid := range descendants(n.Pid()) {
			if cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.HasPrefix(cmdline, []byte("sleep")) {
				environ, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
				return err
			}
		}
		return fmt.Errorf("it does not")
	}); err != nil {
		t.Fatal(err)
	}
	p.search(t, "the application's environment", string(environ))
	log, err := os.ReadFile(logPath)
	if err != nil {
		t.Fatal(err)
	}
	p.search(t, "the log", string(log))
}
