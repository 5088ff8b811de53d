package memory_test

import (
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
	"github.com/locum-ha/locum/physical/physicaltest"
)

func harness(options ...memory.Option) physicaltest.Harness {
	return func(testing.TB) physicaltest.Store {
		store := memory.NewStore(options...)
		return physicaltest.Store{Open: func(int) (physicaltest.Handle, error) { return store.Open(), nil }}
	}
}

// Every promise of package physical, on handles of one store.
func TestConformance(t *testing.T) {
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, harness()) })
	t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, harness()) })
}

// The same with limits, which the store has none of by itself.
func TestConformanceWithLimits(t *testing.T) {
	limits := physical.Caps{MaxKey: 200, MaxValue: 4 << 10, MaxOps: 40, MaxCommit: 16 << 10}
	physicaltest.Backend(t, harness(memory.WithLimits(limits)))
}
