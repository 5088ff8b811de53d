package stores

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
)

// store is how one kind of data store is opened. What it cannot be is nil.
type store struct {
	// storage opens it for entries, and for the lock too where it returns one.
	storage func(context.Context, config.Storage, physical.Host) (physical.Stores, error)

	// lock opens it for the lock alone, as ha_storage.
	lock func(context.Context, config.Storage, physical.Host) (physical.HABackend, error)
}

// known are the stores by the label of their block.
var known = map[string]store{
	"raft":  {storage: openRaft},
	"file":  {storage: openFile},
	"inmem": {storage: openInMem},

	"consul":    {storage: storeConsul, lock: lockConsul},
	"etcd":      {storage: storeEtcd, lock: lockEtcd},
	"zookeeper": {storage: storeZooKeeper, lock: lockZooKeeper},

	"s3":         {storage: storeS3, lock: lockS3},
	"dynamodb":   {lock: lockDynamoDB},
	"kubernetes": {lock: lockKubernetes},

	"postgresql": {storage: storePostgreSQL, lock: lockPostgreSQL},
	"mysql":      {storage: storeMySQL, lock: lockMySQL},
	"redis":      {lock: lockRedis},
	"nats":       {lock: lockNATS},
}

// Names lists the stores that can be storage.
func Names() []string { return names(func(s store) bool { return s.storage != nil }) }

// LockNames lists the stores that can be ha_storage.
func LockNames() []string { return names(func(s store) bool { return s.lock != nil }) }

func names(is func(store) bool) []string {
	var out []string
	for name, s := range known {
		if is(s) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Open opens the storage and, where it is another store, the ha_storage of a configuration. On an error nothing is left
// open.
func Open(ctx context.Context, cfg *config.Config, host physical.Host) (physical.Stores, error) {
	s, ok := known[cfg.Storage.Type]
	if !ok || s.storage == nil {
		return physical.Stores{}, fmt.Errorf("storage %q is not in this version of Locum", cfg.Storage.Type)
	}
	opened, err := s.storage(ctx, cfg.Storage, host)
	if err != nil {
		return physical.Stores{}, err
	}
	if cfg.HAStorage.Type == "" {
		return opened, nil
	}
	l, ok := known[cfg.HAStorage.Type]
	if !ok || l.lock == nil {
		err = fmt.Errorf("ha_storage %q is not in this version of Locum", cfg.HAStorage.Type)
		return physical.Stores{}, errors.Join(err, opened.Storage.Close())
	}
	if opened.Lock, err = l.lock(ctx, cfg.HAStorage, host); err != nil {
		err = fmt.Errorf("ha_storage %q: %w", cfg.HAStorage.Type, err)
		return physical.Stores{}, errors.Join(err, opened.Storage.Close())
	}
	return opened, nil
}
