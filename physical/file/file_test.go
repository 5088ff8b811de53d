package file_test

import (
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/file"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// Every promise of package physical but those on the HA lock.
func TestConformance(t *testing.T) {
	physicaltest.Backend(t, func(t testing.TB) physicaltest.Store {
		path := t.TempDir()
		return physicaltest.Store{
			Nodes: 1,
			Open:  func(int) (physicaltest.Handle, error) { return file.Open(file.Config{Path: path}) },
		}
	})
}

// The node says so and runs alone: there is no lock in this store.
func TestNoHA(t *testing.T) {
	s := open(t, t.TempDir())
	if _, ok := any(s).(physical.HABackend); ok || s.Caps().HA || s.Caps().Shared {
		t.Errorf("file storage claims to hold a lock: %+v", s.Caps())
	}
}

func open(t *testing.T, path string) *file.Store {
	t.Helper()
	s, err := file.Open(file.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
