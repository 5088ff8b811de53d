package stores

import (
	"slices"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
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

// dead_peer_timeout = "0" is never, and not the store's own default.
func TestDeadPeersAreKept(t *testing.T) {
	for text, want := range map[string]time.Duration{"": config.NewStorage("raft").Raft.DeadPeerTimeout, `dead_peer_timeout = "0"`: -1, `dead_peer_timeout = "5m"`: 5 * time.Minute} {
		c, err := config.Parse("locum.hcl", []byte("storage \"raft\" {\n path = \"data\"\n "+text+"\n}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := raftConfig(c.Storage, physical.Host{}).DeadPeerTimeout; got != want || got == 0 {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// Every store that a configuration can name, a program can name in its own code, under the same name.
func TestEveryStoreIsAnOpener(t *testing.T) {
	openers := []physical.Opener{
		raft.Config{}, file.Config{}, memory.NewStore(), consul.Config{}, etcd.Config{}, zookeeper.Config{}, postgres.Config{}, mysql.Config{}, s3.Config{},
		redis.Config{}, nats.Config{}, kubernetes.Config{}, dynamodb.Config{},
	}
	var kinds []string
	for _, o := range openers {
		kinds = append(kinds, o.Kind())
	}
	slices.Sort(kinds)
	all := slices.Compact(slices.Sorted(slices.Values(append(Names(), LockNames()...))))
	if !slices.Equal(kinds, all) {
		t.Errorf("openers %q, stores %q", kinds, all)
	}
}
