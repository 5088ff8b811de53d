package cacheclients

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// missing skips a test for a reason, or fails it where everything must run.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("LOCUM_NO_SKIP") != "" || os.Getenv("CI") != "" {
		t.Fatalf("this must run here: "+format, args...)
	}
	t.Skipf(format, args...)
}

// port is what stands behind the colon.
func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

const nodeFiles = "testdata/node"

// modules are installed with the first test that needs them.
var modules = sync.OnceValues(install)

// install lets npm install what the lock file names, once per lock file, and returns the directory.
func install() (string, error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%s is missing: install Node.js 20 or later with npm", tool)
		}
	}
	lock, err := os.ReadFile(filepath.Join(nodeFiles, "package-lock.json"))
	if err != nil {
		return "", err
	}
	home, err := os.UserCacheDir()
	if err != nil {
		home = os.TempDir()
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(home, "locum-test", "cacheclients-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// Beside its name and renamed, so that nobody finds half of it.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	if err := os.CopyFS(part, os.DirFS(nodeFiles)); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	npm.Dir = part
	npm.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // npm starts further processes: all end with it
	npm.Cancel = func() error { return syscall.Kill(-npm.Process.Pid, syscall.SIGKILL) }
	npm.WaitDelay = time.Second
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, bytes.TrimSpace(out))
	}
	if err := os.Rename(part, dir); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	return dir, nil
}

// script makes the command that runs one of the scripts.
func script(ctx context.Context, t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := modules()
	if err != nil {
		missing(t, "no npm packages: %v", err)
	}
	cmd := exec.CommandContext(ctx, "node", append([]string{filepath.Join(nodeFiles, name)}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_MODULES_DIR="+dir)
	cmd.WaitDelay = time.Second
	return cmd
}

// serve runs a script that serves HTTP, for as long as the test does, and returns its URL.
func serve(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := script(ctx, t, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends with its input, or is killed
		timer := time.AfterFunc(5*time.Second, cancel)
		_ = cmd.Wait()
		timer.Stop()
		cancel()
		if t.Failed() {
			t.Logf("%s said: %s", name, stderr.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	return "http://127.0.0.1:" + strings.TrimSpace(line)
}
