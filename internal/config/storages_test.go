package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// "Combinations that cannot work are refused with the reason", and half a block with what is missing.
func TestStorageBlocks(t *testing.T) {
	const node = "listener \"tcp\" {\n tls_disable = true\n}\napi_addr = \"http://127.0.0.1:8400\"\n"
	for _, c := range []struct{ blocks, want string }{
		{`storage "s3" {}`, `storage.bucket: missing; write bucket = "locum"`},
		{"storage \"s3\" {\n bucket = \"b\"\n access_key = \"a\"\n}", "access_key and its secret go together"},
		{"storage \"s3\" {\n bucket = \"b\"\n access_key = \"a\"\n secret_key = \"b\"\n secret_key_env = \"C\"\n}", "more than one secret"},
		{"storage \"s3\" {\n bucket = \"b\"\n endpoint = \"s3.example.com\"\n}", `storage.endpoint: "s3.example.com" has no scheme`},
		{`storage "dynamodb" {}`, `"dynamodb" keeps the HA lock only`},
		{"storage \"s3\" {\n bucket = \"b\"\n}\nha_storage \"kubernetes\" {\n server = \"https://k8s.example.com\"\n}", "ha_storage.namespace: missing"},
		{"storage \"s3\" {\n bucket = \"b\"\n}\nha_storage \"inmem\" {}", `"inmem" is seen by one node only`},
		{"storage \"s3\" {\n bucket = \"b\"\n}\nha_storage \"dynamodb\" {}", ""},
		{"storage \"s3\" {\n bucket = \"b\"\n}\nha_storage \"kubernetes\" {}", ""},
	} {
		cfg, err := Parse("node.hcl", []byte(node+c.blocks))
		if err == nil {
			err = cfg.Complete(Source{LookupEnv: func(string) (string, bool) { return "", false }})
		}
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.blocks, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got error %v, want %q", c.blocks, err, c.want)
		}
	}
}

// The place of the lock is the same whatever addresses the nodes reach its store at, and another one elsewhere.
func TestLockPlace(t *testing.T) {
	place := func(blocks string) string {
		t.Helper()
		cfg, err := Parse("node.hcl", []byte(blocks))
		if err != nil {
			t.Fatal(err)
		}
		return cfg.LockPlace()
	}
	consul := "storage \"s3\" {\n bucket = \"b\"\n}\nha_storage \"consul\" {\n address = \"10.0.0.1:8500\"\n path = \"orders/\"\n}"
	if got := place(consul); got != "consul path=orders" {
		t.Errorf("the place is %q", got)
	}
	if a, b := place(consul), place(strings.Replace(consul, "10.0.0.1", "10.0.0.2", 1)); a != b {
		t.Errorf("at another address the place is %q, was %q", b, a)
	}
	if a, b := place(consul), place(strings.Replace(consul, "orders", "bills", 1)); a == b {
		t.Errorf("at another path the place is %q, too", b)
	}
	if got := place("storage \"s3\" {\n bucket = \"b\"\n path = \"p\"\n}"); got != "s3 bucket=b path=p" {
		t.Errorf("without ha_storage the place is %q", got)
	}
	for _, same := range []struct{ a, b string }{
		{`storage "etcd" {}`, `storage "etcd" { path = "locum/" }`},
		{`storage "zookeeper" {}`, `storage "zookeeper" { path = "/locum" }`},
		{`storage "mysql" { username = "u" }`, "storage \"mysql\" {\n username = \"v\"\n database = \"locum\"\n table_prefix = \"locum_\"\n}"},
		{`storage "postgresql" { connection_url = "postgres://u@db1/app" }`, `storage "postgresql" { connection_url = "host=db2 dbname=app" }`},
	} {
		if a, b := place(same.a), place(same.b); a != b {
			t.Errorf("%s is at %q, %s at %q", same.a, a, same.b, b)
		}
	}
	database := `storage "postgresql" { connection_url = "postgres://u:secret@db1/locks_a?sslmode=disable" }`
	if got := place(database); got != "postgresql database=locks_a" {
		t.Errorf("the place is %q", got)
	}
}

// What is wrong with a migration's file is said with what to write instead.
func TestReadMigration(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"storage_source \"file\" {\n path = \"/a\"\n}\n", "storage_destination: missing"},
		{"storage_source \"file\" {}\nstorage_destination \"s3\" {}\n", "storage_source.path: missing"},
		{"storage_source \"inmem\" {}\n", `"inmem" forgets its entries`},
		{"storage_source \"redis\" {}\n", `"redis" keeps no entries`},
		{"storage_source \"file\" {\n path = \"/a\"\n}\nstorage_destination \"raft\" {\n path = \"/b\"\n}\n", "cluster_addr"},
		{"storage_source \"file\" {\n path = \"/a\"\n}\nstorage_destination \"s3\" {\n bucket = \"b\"\n}\n", ""},
	} {
		path := filepath.Join(t.TempDir(), "migrate.hcl")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := ReadMigration(path)
		switch {
		case c.want == "" && (err != nil || m.Source.File.Path != "/a" || m.Destination.S3.Bucket != "b"):
			t.Errorf("%s: %+v, %v", c.text, m, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got error %v, want %q", c.text, err, c.want)
		}
	}
}
