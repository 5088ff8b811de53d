package clients

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// driver is the process that runs node-vault: testdata/node-vault/driver.js.
type driver struct {
	process *exec.Cmd
	stdin   io.WriteCloser
	stderr  bytes.Buffer

	mu      sync.Mutex
	next    int
	waiting map[int]chan nodeAnswer
	ended   bool
	done    chan struct{} // closed when its output has ended
}

type nodeAnswer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string          `json:"message"`
		Code    string          `json:"code"`
		Status  int             `json:"status"`
		Body    json.RawMessage `json:"body"`
	} `json:"error"`
}

// node starts the driver with the first test that needs it; TestMain ends it.
var node = sync.OnceValues(startDriver)

var started *driver

func TestMain(m *testing.M) {
	code := m.Run()
	if started != nil {
		started.stop()
	}
	os.Exit(code)
}

const nodeFiles = "testdata/node-vault"

func startDriver() (*driver, error) {
	dir, err := installNode()
	if err != nil {
		return nil, err
	}
	d := &driver{waiting: map[int]chan nodeAnswer{}, done: make(chan struct{})}
	d.process = exec.Command("node", filepath.Join(nodeFiles, "driver.js"))
	d.process.Env = append(os.Environ(), "NODE_VAULT_DIR="+dir)
	d.process.Stderr = &d.stderr
	d.process.WaitDelay = time.Second
	if d.stdin, err = d.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.process.Start(); err != nil {
		return nil, err
	}
	go d.read(out)
	started = d
	return d, nil
}

// stop ends the driver: it ends with its input, or is killed.
func (d *driver) stop() {
	_ = d.stdin.Close()
	timer := time.AfterFunc(5*time.Second, func() { _ = d.process.Process.Kill() })
	defer timer.Stop()
	<-d.done
	_ = d.process.Wait()
}

func (d *driver) read(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var answer nodeAnswer
		if err := json.Unmarshal(line, &answer); err != nil {
			continue // something that a module printed
		}
		d.mu.Lock()
		waiter := d.waiting[answer.ID]
		delete(d.waiting, answer.ID)
		d.mu.Unlock()
		if waiter != nil {
			waiter <- answer
		}
	}
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	close(d.done)
}

func (d *driver) call(ctx context.Context, request object) (nodeAnswer, error) {
	waiter := make(chan nodeAnswer, 1)
	d.mu.Lock()
	d.next++
	id := d.next
	request["id"] = id
	line, err := json.Marshal(request)
	if err == nil && d.ended {
		err = errors.New("the driver has ended")
	}
	if err == nil {
		d.waiting[id] = waiter
		_, err = d.stdin.Write(append(line, '\n'))
	}
	d.mu.Unlock()
	if err != nil {
		return nodeAnswer{}, fmt.Errorf("node-vault's driver: %w", err)
	}
	select {
	case answer := <-waiter:
		return answer, nil
	case <-d.done:
		return nodeAnswer{}, fmt.Errorf("node-vault's driver has ended: %s", d.stderr.String())
	case <-ctx.Done():
		d.mu.Lock()
		delete(d.waiting, id)
		d.mu.Unlock()
		return nodeAnswer{}, context.Cause(ctx)
	}
}

// installNode lets npm install what the lock file names, once per lock file, and returns the directory.
func installNode() (string, error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%s is missing: install Node.js 18 or later with npm", tool)
		}
	}
	lock, err := os.ReadFile(filepath.Join(nodeFiles, "package-lock.json"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "locum-test", "node-vault-"+hex.EncodeToString(sum[:8]))
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
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join(nodeFiles, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(part, name), data, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
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
