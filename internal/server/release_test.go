package server

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// P7 on a data store with a lock: the guardian opens the store anew, with everything that the node knew of it, secrets
// included, and releases the very grant.
func TestReleasePlan(t *testing.T) {
	block := config.Storage{Type: "postgresql"}
	block.PostgreSQL.ConnectionURL = "postgres://locum:secret@db/locum"
	lock, err := encodeStorage(block)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := json.Marshal(releasePlan{Lock: lock, Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	world := memory.NewStore()
	holder := world.Open()
	grant, err := holder.Acquire(t.Context(), physical.Record{Holder: "a", Name: "a"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	release := Release(func(_ context.Context, cfg *config.Config, _ physical.Host) (physical.Stores, error) {
		if diff := cmp.Diff(block, cfg.HAStorage); diff != "" {
			t.Error(diff)
		}
		return physical.Stores{Storage: memory.NewStore().Open(), Lock: world.Open()}, nil
	})
	// The grant goes through JSON, too, on its way to the guardian.
	data, err := json.Marshal(grant)
	if err != nil {
		t.Fatal(err)
	}
	var arrived physical.Grant
	if err := json.Unmarshal(data, &arrived); err != nil {
		t.Fatal(err)
	}
	if err := release(t.Context(), plan, arrived); err != nil {
		t.Fatal(err)
	}
	if _, err := world.Open().Acquire(t.Context(), physical.Record{Holder: "b"}, time.Minute, 0); err != nil {
		t.Errorf("the lock is not free: %v", err)
	}
}
