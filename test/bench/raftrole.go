package main

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	hraft "github.com/hashicorp/raft"
)

// raftRole is a node of hashicorp/raft as its users would set it up for values in memory: its own stores in memory, its own transport
// over plain TCP, its defaults. It is what the cache is built on, and so the rate that it is gauged by.
func raftRole(ctx context.Context, hosts, self, control string) error {
	config := hraft.DefaultConfig()
	config.LocalID = hraft.ServerID(self)
	config.LogOutput = io.Discard
	config.SnapshotThreshold, config.TrailingLogs = 1<<20, 1<<18 // memory, not time, is what a snapshot would save
	address, err := net.ResolveTCPAddr("tcp", self)
	if err != nil {
		return err
	}
	transport, err := hraft.NewTCPTransport(self, address, 8, 5*time.Second, io.Discard)
	if err != nil {
		return err
	}
	defer transport.Close()
	store := hraft.NewInmemStore()
	if all := strings.Split(hosts, ","); all[0] == self {
		var servers []hraft.Server
		for _, host := range all {
			servers = append(servers, hraft.Server{ID: hraft.ServerID(host), Address: hraft.ServerAddress(host)})
		}
		if err := hraft.BootstrapCluster(config, store, store, hraft.NewInmemSnapshotStore(), transport, hraft.Configuration{Servers: servers}); err != nil {
			return err
		}
	}
	r, err := hraft.NewRaft(config, mapFSM{}, store, store, hraft.NewInmemSnapshotStore(), transport)
	if err != nil {
		return err
	}
	defer r.Shutdown()
	c := controlled{
		put: func(_ context.Context, key string, value []byte) error {
			return r.Apply(append(append([]byte(key), 0), value...), 10*time.Second).Error()
		},
		state: func() (bool, bool, int64) {
			_, leader := r.LeaderWithID()
			return r.State() == hraft.Leader, leader != "", 0
		},
	}
	return c.serve(ctx, control)
}

// mapFSM keeps the values.
type mapFSM map[string][]byte

// Apply implements hraft.FSM.
func (m mapFSM) Apply(log *hraft.Log) any {
	key, value, _ := strings.Cut(string(log.Data), "\x00")
	m[key] = []byte(value)
	return nil
}

// Snapshot implements hraft.FSM.
func (m mapFSM) Snapshot() (hraft.FSMSnapshot, error) { return m, nil }

// Persist implements hraft.FSMSnapshot.
func (m mapFSM) Persist(sink hraft.SnapshotSink) error { return sink.Close() }

// Release implements hraft.FSMSnapshot.
func (m mapFSM) Release() {}

// Restore implements hraft.FSM.
func (m mapFSM) Restore(in io.ReadCloser) error { return in.Close() }
