package storeserver_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
)

// lifecycle takes a server through everything that a test does with one.
func lifecycle(t *testing.T, p *storeserver.Process, addr string) {
	t.Helper()
	first := p.Pid()
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	if p.Pid() == first || syscall.Kill(first, 0) == nil {
		t.Errorf("process %d is still there after a restart", first)
	}
	p.Pause()
	p.Resume()
	p.Kill()
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		_ = conn.Close()
		t.Errorf("somebody listens on %s after the server was killed", addr)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

// Each server starts, restarts on its old port, and is gone when it was killed.
func TestServers(t *testing.T) {
	t.Run("etcd", func(t *testing.T) { s := storeserver.StartEtcd(t); lifecycle(t, s.Process, s.Addr) })
	t.Run("consul", func(t *testing.T) { s := storeserver.StartConsul(t, nil); lifecycle(t, s.Process, s.Addr) })
	t.Run("zookeeper", func(t *testing.T) { s := storeserver.StartZooKeeper(t); lifecycle(t, s.Process, s.Addr) })
}

// echo answers each line with itself, and counts the lines that came.
func echo(t *testing.T) (addr string, lines <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	seen := make(chan string, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					seen <- line
					_, _ = io.WriteString(conn, line)
				}
			}()
		}
	}()
	return l.Addr().String(), seen
}

func ask(conn net.Conn, line string, limit time.Duration) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	return strings.TrimSuffix(string(buf[:n]), "\n"), err
}

// A proxy does what its faults say, to connections that are open, and none of it once healed.
func TestProxy(t *testing.T) {
	addr, lines := echo(t)
	p := storeserver.NewProxy(t, addr)
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	arrives := func(want string) {
		t.Helper()
		select {
		case line := <-lines:
			if line != want+"\n" {
				t.Errorf("the server got %q, want %q", line, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%q never arrived", want)
		}
	}
	conn := dial()
	if got, err := ask(conn, "one", time.Second); got != "one" || err != nil {
		t.Fatalf("without a fault: %q, %v", got, err)
	}
	arrives("one")

	p.Stall()
	if got, err := ask(conn, "two", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in a black hole: %q, %v", got, err)
	}
	p.Heal()
	arrives("two")
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.ReadFull(conn, make([]byte, len("two\n"))); err != nil {
		t.Errorf("what was stalled does not arrive after the fault has healed: %v", err)
	}

	p.CutAnswers()
	if got, err := ask(conn, "three", time.Second); got != "" || err == nil {
		t.Errorf("with answers cut: %q, %v", got, err)
	}
	arrives("three")
	conn = dial()
	p.Set(storeserver.Fault{Answers: storeserver.CutHalf})
	if got, err := ask(conn, "half-half", time.Second); got != "half-" || err != nil {
		t.Errorf("with answers cut in half: %q, %v", got, err)
	}
	arrives("half-half")
	p.Heal()

	conn = dial()
	p.Set(storeserver.Fault{Delay: 60 * time.Millisecond})
	start := time.Now()
	if got, err := ask(conn, "late", 5*time.Second); got != "late" || err != nil || time.Since(start) < 120*time.Millisecond {
		t.Errorf("with a delay: %q, %v, after %v", got, err, time.Since(start))
	}
	arrives("late")
	p.Refuse()
	if got, err := ask(conn, "refused", time.Second); err == nil {
		t.Errorf("refused: %q", got)
	}
	if got, err := ask(dial(), "refused", time.Second); err == nil {
		t.Errorf("refused, a new connection: %q", got)
	}
	p.Heal()
	if got, err := ask(dial(), "again", time.Second); got != "again" || err != nil {
		t.Errorf("after all faults have healed: %q, %v", got, err)
	}
}
