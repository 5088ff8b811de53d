package stores

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/consul"
	"github.com/locum-ha/locum/physical/dynamodb"
	"github.com/locum-ha/locum/physical/etcd"
	"github.com/locum-ha/locum/physical/file"
	"github.com/locum-ha/locum/physical/kubernetes"
	"github.com/locum-ha/locum/physical/memory"
	"github.com/locum-ha/locum/physical/mysql"
	"github.com/locum-ha/locum/physical/nats"
	"github.com/locum-ha/locum/physical/postgres"
	"github.com/locum-ha/locum/physical/raft"
	"github.com/locum-ha/locum/physical/redis"
	"github.com/locum-ha/locum/physical/s3"
	"github.com/locum-ha/locum/physical/zookeeper"
)

var update = flag.Bool("update", false, "write docs/stores.md anew")

// allCaps asks every store what it can do, in the order of the page.
func allCaps(t *testing.T) []physical.Caps {
	t.Helper()
	embedded, err := raft.Open(raft.Config{Path: t.TempDir(), Performance: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	files, err := file.Open(file.Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	const packet = 16 << 20 // MariaDB's and MySQL's default
	inmem := memory.NewStore().Open().Caps()
	return []physical.Caps{
		embedded.Caps(), consul.Caps(), etcd.Caps(), zookeeper.Caps(), postgres.Caps(), mysql.Caps(packet), s3.Caps(),
		redis.Caps(), nats.Caps(), kubernetes.Caps(), dynamodb.Caps(), files.Caps(), inmem,
	}
}

// "One table in the docs, generated from Caps": docs/stores.md is what the stores say now. "make docs" writes it.
func TestPage(t *testing.T) {
	page := Page(allCaps(t))
	path := filepath.Join("..", "..", "docs", "stores.md")
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	now, err := os.ReadFile(path)
	if err != nil || string(now) != page {
		t.Errorf("docs/stores.md is not current (%v): run make docs", err)
	}
}

// What the configuration takes, what can be opened, and what the stores say of themselves agree.
func TestStoresAgree(t *testing.T) {
	var entries, locks []string
	for _, c := range allCaps(t) {
		if c.Entries {
			entries = append(entries, c.Name)
		}
		if c.HA && c.Shared && c.Name != "raft" {
			locks = append(locks, c.Name)
		}
		if c.Failover == "" || c.HA && (c.MinTTL <= 0 || c.DefaultTTL < c.MinTTL) {
			t.Errorf("%s: %+v", c.Name, c)
		}
	}
	slices.Sort(entries)
	slices.Sort(locks)
	if got := Names(); !slices.Equal(got, entries) {
		t.Errorf("storage can be %q, and the stores that keep entries are %q", got, entries)
	}
	if got := LockNames(); !slices.Equal(got, locks) {
		t.Errorf("ha_storage can be %q, and the stores that hold the lock are %q", got, locks)
	}
}
