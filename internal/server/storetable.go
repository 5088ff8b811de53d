package server

import (
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// storeRows say what the data stores in use can do, as docs/stores.md says it of all.
func (s *Server) storeRows() map[string]string {
	lock := s.cfg.HAStorage.Type
	rows := map[string]string{}
	if lock != "" {
		rows["HA Storage"] = lock + " " + keepsWords(s.lockCaps)
		rows["HA Storage Failover"] = s.lockCaps.Failover
	} else {
		lock = s.cfg.Storage.Type
	}
	if s.ha {
		rows["Storage Fence"] = "every write is checked against it, in the same transaction"
		rows["Storage Failover"] = s.entryCaps.Failover
		rows["HA Lock"] = lockWords(lock, s.lockCaps, s.cfg.HA.LockTTL)
	}
	return rows
}

func keepsWords(c physical.Caps) string {
	if c.Entries {
		return "(HA available)"
	}
	return "(lock only)"
}

// lockWords say how standbys learn of a change, and how long a lock outlives its holder; ttl is the configured one, or 0.
func lockWords(store string, c physical.Caps, ttl time.Duration) string {
	if ttl == 0 {
		ttl = c.DefaultTTL
	}
	wakes := "standbys poll"
	if c.Watch {
		wakes = "standbys are woken by watch"
	}
	return fmt.Sprintf("in %s; %s; TTL %s (shortest sensible: %s)", store, wakes, ttl, c.MinTTL)
}
