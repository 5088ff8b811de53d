package storeserver

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Missing ends a test whose server cannot be had: skipped with the reason, or failed where LOCUM_NO_SKIP is set.
func Missing(t T, format string, args ...any) {
	t.Helper()
	if os.Getenv("LOCUM_NO_SKIP") != "" {
		t.Fatalf(format+" (LOCUM_NO_SKIP is set: this must run)", args...)
	}
	t.Skipf(format, args...)
}

// Program returns the path of the first of the programs that is installed; Missing ends the test if none is.
func Program(t T, pkg string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(t, "%s is not installed: \"make deps\" as root, or: apt-get install %s", names[0], pkg)
	return ""
}

// Built returns the path of a program that the project's own scripts build, once, from a module of its own.
func Built(t T, name, version string) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	path := filepath.Join(dir, "locum", name+"-"+version)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		Missing(t, "there is no %s %s: \".ci/built %s\" builds it", name, version, name)
	}
	return path
}

// Faults reports whether the long tests of faults are asked for ("make faults"); CI runs the short ones alone.
func Faults() bool { return os.Getenv("LOCUM_FAULTS") != "" }

// ports that this program has given out.
var (
	portsMu sync.Mutex
	ports   = make(map[int]bool)
)

// FreePort returns a port of the loopback interface that nobody listens on. It lies below the range that the kernel
// takes ports of outgoing connections from: a server that is down for a moment must find its port free, and a client
// that dials it meanwhile must not be connected to itself.
func FreePort(t T) int {
	t.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := 16000 + rand.IntN(32700-16000)
		if ports[port] {
			continue
		}
		l, err := net.Listen("tcp", Loopback(port))
		if err != nil {
			continue
		}
		_ = l.Close()
		ports[port] = true
		return port
	}
	t.Fatalf("no free port between 16000 and 32700")
	return 0
}

// Loopback is a port's address.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Dir makes a directory that the user, "" for this program's own, can write in. It is removed when the test ends.
func Dir(t T, owner string) string {
	t.Helper()
	if owner == "" || os.Geteuid() != 0 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("", "locum-store-") // t.TempDir lies below a directory that is closed to others
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("%v", err)
		}
	})
	cred, err := credential(owner)
	if err == nil {
		err = os.Chown(dir, int(cred.Uid), int(cred.Gid))
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return dir
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, errU := strconv.ParseUint(u.Uid, 10, 32)
	gid, errG := strconv.ParseUint(u.Gid, 10, 32)
	if errU != nil || errG != nil {
		return nil, fmt.Errorf("user %s has uid %q and gid %q", name, u.Uid, u.Gid)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
