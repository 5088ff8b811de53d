package file_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/file"
)

// A folder that the first version wrote is read, and written to, by every later one.
func TestFrozenFolder(t *testing.T) {
	packed, err := os.Open(filepath.Join("testdata", "entries-1.db.gz"))
	must(t, err)
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	must(t, err)
	data, err := io.ReadAll(unpacked)
	must(t, err)
	path := t.TempDir()
	must(t, os.WriteFile(filepath.Join(path, "entries.db"), data, 0o600))

	s := open(t, path)
	checkFrozen(t, s)
	must(t, s.Commit(t.Context(), &frozenFence, physical.Put("new", nil)))
	must(t, s.Close())
	checkFrozen(t, open(t, path))
}

var frozenFence = physical.Fence{Lineage: "lineage", Term: 42, Nonce: [16]byte{0, 1, 2, 15: 0xff}}

var frozenEntries = map[string]string{"a": "1", "a/b": "", "ü/binary": "\x00\xff\x01"}

func checkFrozen(t *testing.T, s *file.Store) {
	t.Helper()
	for key, value := range frozenEntries {
		if e, err := s.Get(t.Context(), key); err != nil || string(e.Value) != value {
			t.Errorf("%q is %v, %v", key, e, err)
		}
	}
	if names, err := s.List(t.Context(), "", "", 3); err != nil || !slices.Equal(names[:2], []string{"a", "a/"}) {
		t.Errorf("the list is %q, %v", names, err)
	}
	if f, err := s.Fence(t.Context()); err != nil || f != frozenFence {
		t.Errorf("the fence is %v, %v", f, err)
	}
}
