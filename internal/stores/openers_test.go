package stores

import (
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
