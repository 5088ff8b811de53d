package physical

import (
	"context"
	"log/slog"
)

// Host is what a store may be told of the node that opens it. Every field may be empty.
type Host struct {
	NodeName    string         // for people
	ClusterAddr string         // host:port where the other nodes reach this one
	Logger      *slog.Logger   // default: discard
	Engine      EngineObserver // told of the events of a store that runs in the nodes themselves
}

// Stores are the data stores of one node, opened.
type Stores struct {
	// Storage keeps the entries.
	Storage Backend

	// Lock keeps the HA lock: the same value as Storage, where one store does both; another store; or nil, where
	// there is none, or no other process could see it: then the node runs alone.
	Lock HABackend
}

// Opener is a data store that a program names in its own code: the Config of a store's package is one.
type Opener interface {
	// Kind is the store's name in the configuration, and in Caps: "raft", "postgresql", …
	Kind() string

	// OpenStores opens it. A store that keeps the lock alone leaves Stores.Storage nil.
	OpenStores(ctx context.Context, host Host) (Stores, error)
}

// Both is what OpenStores returns where one store keeps entries and lock.
func Both[S interface {
	Backend
	HABackend
}](s S, err error) (Stores, error) {
	if err != nil {
		return Stores{}, err
	}
	return Stores{Storage: s, Lock: s}, nil
}

// LockOnly is what OpenStores returns where a store keeps the lock and no entries.
func LockOnly[S HABackend](s S, err error) (Stores, error) {
	if err != nil {
		return Stores{}, err
	}
	return Stores{Lock: s}, nil
}
