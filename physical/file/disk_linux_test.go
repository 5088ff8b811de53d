package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/file"
)

func init() { jobs["full"] = full }

// full writes until the disk, which for this process is 256 KiB, is full, and expects that an error is all that
// costs. Then there is room again.
func full(s *file.Store) error {
	signal.Ignore(syscall.SIGXFSZ) // as on a disk that is full, the call fails
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	small := unix.Rlimit{Cur: 256 << 10, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &small); err != nil {
		return err
	}
	ctx := context.Background()
	value := bytes.Repeat([]byte("v"), 3000)
	written, refused := 0, 0
	for i := 0; refused < 5; i++ {
		err := s.Commit(ctx, nil, physical.Put(fmt.Sprintf("a/%04d", i), value), physical.Put(fmt.Sprintf("b/%04d", i), value))
		switch {
		case err == nil && refused == 0:
			written = i + 1
		case err != nil && errors.Is(err, physical.ErrUnavailable) && !errors.Is(err, physical.ErrUnknown):
			refused++
		case err != nil:
			return fmt.Errorf("a full disk: %w", err)
		}
	}
	if err := complete(ctx, s, written); err != nil {
		return fmt.Errorf("on the full disk: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := s.Commit(ctx, nil, physical.Put("room", value)); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := complete(ctx, s, written); err != nil {
		return err
	}
	fmt.Println("written", written)
	return s.Close()
}

// complete expects both entries of each of the first n commits.
func complete(ctx context.Context, s *file.Store, n int) error {
	for i := range n {
		for _, folder := range []string{"a", "b"} {
			if _, err := s.Get(ctx, fmt.Sprintf("%s/%04d", folder, i)); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		}
	}
	a, err := s.List(ctx, "a/", "", 0)
	if err != nil {
		return err
	}
	b, err := s.List(ctx, "b/", "", 0)
	if err == nil && strings.Join(a, " ") != strings.Join(b, " ") {
		err = errors.New("a commit was written in part")
	}
	return err
}

// A full disk is an error, and nothing is lost.
func TestFullDisk(t *testing.T) {
	path := t.TempDir()
	_, out := child(t, "full", path)
	text, err := io.ReadAll(out)
	var written int
	if n, _ := fmt.Sscanf(string(text), "written %d", &written); err != nil || n != 1 || written < 5 {
		t.Fatalf("the child says %q, %v", text, err)
	}
	s := open(t, path)
	if err := complete(t.Context(), s, written); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "room"); err != nil {
		t.Error(err)
	}
}

// Missing permissions are named, with what can be done.
func TestPermissions(t *testing.T) {
	above := t.TempDir()
	for _, folder := range []string{filepath.Dir(above), above} { // so that it is not these that are in the way
		must(t, os.Chmod(folder, 0o755))
	}
	locked := filepath.Join(above, "locked")
	must(t, os.Mkdir(locked, 0o755))
	for _, path := range []string{locked, filepath.Join(locked, "below")} {
		must(t, os.Chmod(locked, 0o555))
		done := make(chan error)
		go func() {
			if os.Getuid() == 0 {
				// For root no permission is missing, so this thread becomes another user to the file system. It
				// is never unlocked, and ends with the goroutine.
				runtime.LockOSThread()
				if _, err := unix.SetfsuidRetUid(65534); err != nil {
					done <- err
					return
				}
			}
			s, err := file.Open(file.Config{Path: path})
			if err == nil {
				err = errors.Join(errors.New("it was opened"), s.Close())
			}
			done <- err
		}()
		err := <-done
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "must belong to the user") {
			t.Errorf("open of %s: %v", filepath.Base(path), err)
		}
		t.Log(err)
	}
}
