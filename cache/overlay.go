package cache

import "sync"

// overlays are the direct puts of this node that the log does not have yet.
type overlays struct {
	mu sync.RWMutex
	m  map[overKey]*entry
}

type overKey struct{ cache, key string }

func (o *overlays) get(cache, key string) *entry {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.m[overKey{cache, key}]
}
