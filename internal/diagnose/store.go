package diagnose

import (
	"errors"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// shared reports whether the nodes share a data store that is not their own.
func (r *run) shared() bool { return r.cfg.HAEnabled() && r.cfg.Storage.Type != "raft" }

// dataStore opens the store that the nodes share, and the lock's, and asks them for what a node asks first. Where the lock is
// kept by the cluster's own account is sealed, and an unsealed node checks it.
func (r *run) dataStore() {
	if !r.shared() {
		return // the data directory was looked at, or nothing is kept
	}
	if r.OpenStores == nil {
		r.skip("start the node: its log says", "storage %q was not looked at", r.cfg.Storage.Type)
		return
	}
	ctx, cancel := r.within()
	defer cancel()
	opened, err := r.OpenStores(ctx, r.cfg)
	if err != nil {
		r.fault(fmt.Sprintf("let this host reach it, and give it the rights in docs/stores/%s.md", r.cfg.Storage.Type), "the data store cannot be used: %s", err)
		return
	}
	defer func() {
		if opened.Lock != nil && any(opened.Lock) != any(opened.Storage) {
			_ = opened.Lock.Close() // it was only looked at
		}
		_ = opened.Storage.Close()
	}()
	fence, err := opened.Storage.Fence(ctx)
	switch {
	case err != nil:
		r.fault("see whether it serves, and what this user may do there", "storage %q is reached, and the fence cannot be read: %s", r.cfg.Storage.Type, err)
	case fence.IsZero():
		r.ok("storage %q is reached, and nobody has been active on it yet", r.cfg.Storage.Type)
	default:
		r.ok("storage %q is reached; its fence stands at term %d", r.cfg.Storage.Type, fence.Term)
	}
	r.lockStore(opened.Lock)
}

// lockStore looks at the HA lock.
func (r *run) lockStore(lock physical.HABackend) {
	name := r.cfg.HAStorage.Type
	if name == "" {
		name = r.cfg.Storage.Type
	}
	if lock == nil {
		r.fault("name a store that can hold it in ha_storage", "%q cannot hold the HA lock", name)
		return
	}
	ctx, cancel := r.within()
	defer cancel()
	record, err := lock.Holder(ctx)
	switch {
	case errors.Is(err, physical.ErrNoHolder):
		r.ok("the HA lock in %q is free", name)
	case err != nil:
		r.fault("see whether it serves, and what this user may do there", "the HA lock in %q cannot be read: %s", name, err)
	default:
		r.ok("the HA lock in %q is held by %s, of term %d", name, record.Name, record.Term)
	}
}
