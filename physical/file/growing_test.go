package file_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/file"
)

// What is read is the reader's own: it stays when the file grows and the store's memory moves.
func TestReadsWhileTheFileGrows(t *testing.T) {
	s, err := file.Open(file.Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := bytes.Repeat([]byte("locum"), 20_000)
	if err := s.Commit(t.Context(), nil, physical.Put("read", want)); err != nil {
		t.Fatal(err)
	}
	grown := make(chan struct{})
	var readers sync.WaitGroup
	defer readers.Wait()
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-grown:
					return
				default:
				}
				if e, err := s.Get(t.Context(), "read"); err != nil || !bytes.Equal(e.Value, want) {
					t.Errorf("read while the file grew: %v", err)
					return
				}
			}
		})
	}
	defer close(grown)
	for i := range 12 {
		if err := s.Commit(t.Context(), nil, physical.Put(string(rune('a'+i)), make([]byte, 4<<20))); err != nil {
			t.Fatal(err)
		}
	}
}
