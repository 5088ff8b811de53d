package memory_test

import (
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// Every promise of package physical, on handles of one store.
func TestConformance(t *testing.T) {
	harness := func(testing.TB) physicaltest.Store {
		store := memory.NewStore()
		return physicaltest.Store{Open: func(int) (physicaltest.Handle, error) { return store.Open(), nil }}
	}
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, harness) })
}

// The same with limits, which the store has none of by itself.
func TestConformanceWithLimits(t *testing.T) {
	limits := physical.Caps{MaxKey: 200, MaxValue: 4 << 10, MaxOps: 40, MaxCommit: 16 << 10}
	physicaltest.Backend(t, func(testing.TB) physicaltest.Store {
		store := memory.NewStore(memory.WithLimits(limits))
		return physicaltest.Store{Open: func(int) (physicaltest.Handle, error) { return store.Open(), nil }}
	})
}
