package file_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/file"
)

// The test binary is its own child process: with these in the environment it does a child's job instead.
const (
	childJob  = "LOCUM_FILE_TEST_JOB"
	childPath = "LOCUM_FILE_TEST_PATH"
)

var jobs = map[string]func(s *file.Store) error{"hold": hold, "write": write}

func TestMain(m *testing.M) {
	job := os.Getenv(childJob)
	if job == "" {
		os.Exit(m.Run())
	}
	s, err := file.Open(file.Config{Path: os.Getenv(childPath)})
	if err == nil {
		err = jobs[job](s)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child starts a job on the folder and returns its output. It is killed when the test ends, if not before.
func child(t *testing.T, job, path string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childJob+"="+job, childPath+"="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // its end is the child's, should this process die
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

func hold(*file.Store) error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// A folder serves one process; the lock of one that was killed does not stay.
func TestOneProcess(t *testing.T) {
	path := t.TempDir()
	cmd, out := child(t, "hold", path)
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	_, err := file.Open(file.Config{Path: path})
	if !errors.Is(err, file.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("open of a folder that another process has: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	open(t, path)
	if _, err := file.Open(file.Config{Path: path}); !errors.Is(err, file.ErrInUse) {
		t.Errorf("open of a folder that this process has: %v", err)
	}
}

const crashWriters = 8

// write commits groups of three entries per writer, as fast as it goes, and prints each that is acknowledged.
func write(s *file.Store) error {
	failed := make(chan error)
	for w := range crashWriters {
		go func() {
			for n := 1; ; n++ {
				value := fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", rand.N(3000)))
				ops := []physical.Op{physical.Put(fmt.Sprintf("w%d/a", w), value), physical.Put(fmt.Sprintf("w%d/b", w), value)}
				if c := fmt.Sprintf("w%d/odd", w); n%2 == 1 {
					ops = append(ops, physical.Put(c, value))
				} else {
					ops = append(ops, physical.Delete(c))
				}
				if err := s.Commit(context.Background(), nil, ops...); err != nil {
					failed <- err
					return
				}
				fmt.Printf("%d %d\n", w, n)
			}
		}()
	}
	return <-failed
}

// P3, and all or nothing also after kill -9: what was acknowledged is there, and every group is whole.
func TestKilledWhileWriting(t *testing.T) {
	path := t.TempDir()
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		cmd, out := child(t, "write", path)
		var acknowledged [crashWriters]int
		timer := time.AfterFunc(30*time.Millisecond+rand.N(150*time.Millisecond), func() { _ = cmd.Process.Kill() })
		for {
			line, err := out.ReadString('\n')
			if err != nil {
				break // a line without its end was not printed whole
			}
			var w, n int
			if _, err := fmt.Sscanf(line, "%d %d", &w, &n); err != nil {
				t.Fatalf("the child says %q", line)
			}
			acknowledged[w] = n
		}
		timer.Stop()
		checkGroups(t, path, acknowledged)
	}
}

func checkGroups(t *testing.T, path string, acknowledged [crashWriters]int) {
	t.Helper()
	s, err := file.Open(file.Config{Path: path})
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	for w, least := range acknowledged {
		a, errA := s.Get(t.Context(), fmt.Sprintf("w%d/a", w))
		b, errB := s.Get(t.Context(), fmt.Sprintf("w%d/b", w))
		_, errOdd := s.Get(t.Context(), fmt.Sprintf("w%d/odd", w))
		if errA != nil && errB != nil && least == 0 {
			continue
		}
		if errA != nil || errB != nil || string(a.Value) != string(b.Value) {
			t.Fatalf("writer %d: the group is not whole: %v, %v", w, errA, errB)
		}
		var n int
		if _, err := fmt.Sscanf(string(a.Value), "%d ", &n); err != nil {
			t.Fatal(err)
		}
		if odd := errOdd == nil; n < least || odd != (n%2 == 1) {
			t.Fatalf("writer %d: number %d is stored (its odd entry: %v), %d was acknowledged", w, n, odd, least)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A power cut in the middle of the last write, the meta page half there, leaves what was before it.
func TestTornLastWrite(t *testing.T) {
	path := t.TempDir()
	s := open(t, path)
	for _, value := range []string{"1", "2"} {
		if err := s.Commit(t.Context(), nil, physical.Put("a", []byte(value)), physical.Put("only-"+value, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(path, "entries.db")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	// The transaction's number is the 8 bytes before the checksum, which ends the meta page's 64 bytes of content.
	txid := func(meta int) uint64 { return binary.NativeEndian.Uint64(data[meta*page+16+48:]) }
	newest := 0
	if txid(1) > txid(0) {
		newest = 1
	}
	clear(data[newest*page+40 : newest*page+100])
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	if e, err := s.Get(t.Context(), "a"); err != nil || string(e.Value) != "1" {
		t.Errorf("after a torn write a is %v, %v, want 1", e, err)
	}
	if _, err := s.Get(t.Context(), "only-2"); !errors.Is(err, physical.ErrNotFound) {
		t.Errorf("after a torn write there is a part of it: %v", err)
	}
	if err := s.Commit(t.Context(), nil, physical.Put("a", []byte("3"))); err != nil {
		t.Errorf("commit after a torn write: %v", err)
	}
}

// What cannot be opened is refused with a reason, and left as it is.
func TestOpenRefuses(t *testing.T) {
	whole := func(t *testing.T, path string) string {
		must(t, open(t, path).Close())
		return filepath.Join(path, "entries.db")
	}
	for name, c := range map[string]struct {
		want  error
		spoil func(t *testing.T, path string)
	}{
		"no path": {nil, nil},
		"a file": {nil, func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.WriteFile(path, nil, 0o600))
		}},
		"below a file": {nil, func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Remove(filepath.Dir(path)))
			must(t, os.WriteFile(filepath.Dir(path), nil, 0o600))
		}},
		"another program's file": {file.ErrDamaged, func(t *testing.T, path string) {
			must(t, os.WriteFile(filepath.Join(path, "entries.db"), []byte(strings.Repeat("not a store ", 5000)), 0o600))
		}},
		"cut short": {file.ErrDamaged, func(t *testing.T, path string) {
			must(t, os.Truncate(whole(t, path), int64(2*os.Getpagesize()+100)))
		}},
		"cut to nearly nothing": {file.ErrDamaged, func(t *testing.T, path string) {
			must(t, os.Truncate(whole(t, path), 10))
		}},
		"both meta pages gone": {file.ErrDamaged, func(t *testing.T, path string) {
			f, err := os.OpenFile(whole(t, path), os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(make([]byte, 2*os.Getpagesize()), 0)
			must(t, errors.Join(err, f.Close()))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := ""
			if c.spoil != nil {
				path = filepath.Join(t.TempDir(), "above", "folder")
				must(t, os.MkdirAll(path, 0o700))
				c.spoil(t, path)
			}
			s, err := file.Open(file.Config{Path: path})
			if err == nil {
				_ = s.Close()
				t.Fatal("it was opened")
			}
			if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", path)) {
				t.Errorf("the error is %v, want %v with the path", err, c.want)
			}
			t.Log(err)
		})
	}
}

// A new folder is made with those above it, readable by its owner only, and nothing of its making stays.
func TestNewFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	must(t, os.MkdirAll(path, 0o700))
	must(t, os.WriteFile(filepath.Join(path, "entries.db.new-1"), nil, 0o600)) // of a start that was killed
	open(t, path)
	entries, err := os.ReadDir(path)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != "entries.db" {
		t.Errorf("the folder holds %v", entries)
	}
	path = filepath.Join(t.TempDir(), "a", "b")
	open(t, path)
	for name, want := range map[string]fs.FileMode{path: 0o700, filepath.Join(path, "entries.db"): 0o600} {
		info, err := os.Stat(name)
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", filepath.Base(name), got, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
