package supervise

import (
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// said hands on what is logged.
type said chan string

func (s said) Write(p []byte) (int, error) {
	select {
	case s <- string(p):
	default:
	}
	return len(p), nil
}

// P2: "ended, and seen to be ended, before the lock is released". A process that the kernel does not end, here one that nobody has killed,
// is waited for however long it takes: until then it has not ended.
func TestUnended(t *testing.T) {
	was := stillThere
	stillThere = 20 * time.Millisecond
	log := make(said, 100)
	guard, err := StartGuardian(t.Context(), GuardianConfig{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	g := guard.(*Guardian)
	sleep := exec.Command("sleep", "3600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleep.Process.Kill() // has been, unless the test failed
		_ = sleep.Wait()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		stillThere = was
	}()
	p := &process{guardian: g, id: 99, pid: sleep.Process.Pid, started: make(chan struct{}), done: make(chan struct{}), handle: -1}
	p.hold("")
	g.mu.Lock()
	g.trees[p.id] = p
	g.mu.Unlock()
	g.force()
	limit := time.After(20 * time.Second)
	for reports := 0; reports < 3; {
		select {
		case line := <-log:
			if strings.Contains(line, "has not ended") {
				reports++
			}
		case <-p.Done():
			t.Fatal("taken for ended while it is there")
		case <-limit:
			t.Fatal("nobody says that it is waited for")
		}
	}
	if err := sleep.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := done(t, p); e.Cause != causeGuardian {
		t.Errorf("%+v", e)
	}
}
