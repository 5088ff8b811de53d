package diagnose

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// A data store that the nodes share is opened and asked as a node does it; what is wrong with it is said.
func TestDataStore(t *testing.T) {
	const storage = "storage \"consul\" {}\nha_storage \"redis\" {}\n"
	s := newScene(t)
	expect(t, s.run(s.listener(), storage), CheckStore, Skipped, `"consul" was not looked at`)

	entries, locks := memory.NewStore(), memory.NewStore()
	var refused error
	s.options.OpenStores = func(context.Context, *config.Config) (physical.Stores, error) {
		if refused != nil {
			return physical.Stores{}, refused
		}
		return physical.Stores{Storage: entries.Open(), Lock: locks.Open()}, nil
	}
	report := s.run(s.listener(), storage)
	expect(t, report, CheckStore, OK, `"consul" is reached, and nobody has been active`)
	expect(t, report, CheckStore, OK, `the HA lock in "redis" is free`)
	expect(t, report, CheckOthers, Skipped, "the nodes find the active one alone")
	expect(t, report, CheckMember, OK, `"consul" is shared`)

	node := entries.Open()
	defer node.Close()
	if err := node.RaiseFence(t.Context(), physical.Fence{}, physical.Fence{Lineage: "l", Term: 7}); err != nil {
		t.Fatal(err)
	}
	lock := locks.Open()
	defer lock.Close()
	if _, err := lock.Acquire(t.Context(), physical.Record{Holder: "id", Name: "node-b"}, time.Minute, 6); err != nil {
		t.Fatal(err)
	}
	report = s.run(s.listener(), storage)
	expect(t, report, CheckStore, OK, "its fence stands at term 7")
	expect(t, report, CheckStore, OK, `the HA lock in "redis" is held by node-b, of term 7`)

	refused = errors.New("consul: permission denied")
	expect(t, s.run(s.listener(), storage), CheckStore, Error, "cannot be used: consul: permission denied", "docs/stores/consul.md")

	never(t, s.run(s.listener(), s.storage()), CheckStore, Error) // raft's is no store that is shared
}
