package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/storeserver"
)

// A cluster of one goes from files to the embedded store, on to S3 (a fake) and its lock to another path there, by the commands
// that a user types: entries, tokens and seal come along, the term rises, and a node of the old place is told why it cannot go on.
func TestMigrate(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs servers")
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "seal.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	fake := storeserver.StartFakeS3(t)
	bucket := fmt.Sprintf("bucket = %q\n  endpoint = %q\n  s3_force_path_style = true\n  access_key = \"a\"\n  secret_key = \"b\"", fake.Bucket, fake.URL)
	port := freePorts(t)
	address := fmt.Sprintf("http://127.0.0.1:%d", port)
	config := filepath.Join(dir, "locum.hcl")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	node := func(blocks string) *serverRun {
		t.Helper()
		write(config, fmt.Sprintf("node_name = \"a\"\nlistener \"tcp\" {\n  address = \"127.0.0.1:%d\"\n  tls_disable = true\n}\nseal \"static\" {\n  key_file = %q\n}\n%s\n", port, key, blocks))
		return startServer(t, config, address)
	}
	inFiles := fmt.Sprintf("path = %q", filepath.Join(dir, "files"))
	s := node("storage \"file\" {\n  " + inFiles + "\n}")
	var secrets initOutput
	await(t, "it is initialised", func() bool {
		code, out := s.locum(t, "", "", "operator", "init", "-format=json")
		return code == 0 && json.Unmarshal([]byte(out), &secrets) == nil
	})
	token := secrets.RootToken
	await(t, "it serves", func() bool { code, _ := s.locum(t, token, "", "kv", "put", "app/x", "a=1"); return code == 0 })
	s.stop(t)

	migrate := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), builtBinary(t), append([]string{"operator", "migrate"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("migrate %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	inRaft := fmt.Sprintf("path = %q", filepath.Join(dir, "raft"))
	both := filepath.Join(dir, "migrate.hcl")
	write(both, fmt.Sprintf("node_name = \"a\"\ncluster_addr = \"https://127.0.0.1:%d\"\nstorage_source \"file\" {\n  %s\n}\nstorage_destination \"raft\" {\n  %s\n}\n", port+1, inFiles, inRaft))
	if out := migrate("-config", both); !strings.Contains(out, "Copied and compared") {
		t.Errorf("migrate says: %s", out)
	}
	holds := func(s *serverRun, value string) {
		t.Helper()
		await(t, "the entry is there: "+value, func() bool {
			_, out := s.locum(t, token, "", "kv", "get", "-field=a", "app/x")
			return strings.TrimSpace(out) == value
		})
	}
	s = node("storage \"raft\" {\n  " + inRaft + "\n}")
	holds(s, "1")
	s.must(t, token, "", "kv", "put", "app/x", "a=2")
	s.stop(t)

	write(both, fmt.Sprintf("storage_source \"raft\" {\n  %s\n}\nstorage_destination \"s3\" {\n  %s\n}\n", inRaft, bucket))
	migrate("-config", both)
	s = node("storage \"s3\" {\n  " + bucket + "\n}")
	holds(s, "2")
	s.stop(t)

	moved := "storage \"s3\" {\n  " + bucket + "\n}\nha_storage \"s3\" {\n  path = \"elsewhere\"\n  " + bucket + "\n}"
	s = node(moved)
	await(t, "a node that looks for the lock elsewhere is refused", func() bool { return strings.Contains(s.output(), "the HA lock is kept elsewhere") })
	s.stop(t)
	migrate("-lock", "-config", config)
	s = node(moved)
	holds(s, "2")
	s.stop(t)
}
