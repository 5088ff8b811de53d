package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/raft"
)

func openRaft(_ context.Context, s config.Storage, host physical.Host) (physical.Stores, error) {
	return physical.Both(raft.Open(raftConfig(s, host)))
}

func raftConfig(s config.Storage, host physical.Host) raft.Config {
	c := raft.Config{
		Path: s.Raft.Path, Name: host.NodeName, Advertise: host.ClusterAddr, Performance: float64(s.Raft.Performance),
		DeadPeerTimeout: s.Raft.DeadPeerTimeout, SnapshotBytes: int64(s.Raft.SnapshotSize),
		Logger: host.Logger, Observer: host.Engine,
	}
	if c.DeadPeerTimeout == 0 { // never: the configuration has its default, and 0 in it is meant
		c.DeadPeerTimeout = -1
	}
	return c
}
