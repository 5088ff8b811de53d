package physicaltest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// noGoroutineLeft makes the test fail if goroutines that were started during it outlive it. Call it before
// anything else registers a cleanup. Clients need a moment to wind down: they get two seconds.
func noGoroutineLeft(t testing.TB) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		var left []string
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); <-ticker.C {
			if left = newcomers(before); len(left) == 0 {
				return
			}
		}
		t.Errorf("%d goroutines left behind:\n\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

func newcomers(before map[string]string) []string {
	var left []string
	for id, stack := range goroutines() {
		if _, ok := before[id]; !ok && !ofTesting(stack) {
			left = append(left, stack)
		}
	}
	return left
}

// ofTesting reports whether the goroutine is the test framework's own: it runs nothing of ours.
func ofTesting(stack string) bool {
	return strings.Contains(stack, "testing.(*T).Run(") || strings.Contains(stack, "testing.tRunner(") ||
		strings.Contains(stack, "testing.(*F).") || strings.Contains(stack, "os/signal.")
}

// goroutines returns the stacks of all goroutines, by the number that Go gives each only once.
func goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	for n := runtime.Stack(buf, true); n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	all := make(map[string]string)
	text := strings.TrimRight(string(buf), "\x00")
	for stack := range strings.SplitSeq(text, "\n\n") {
		var id int
		if _, err := fmt.Sscanf(stack, "goroutine %d ", &id); err == nil {
			all[fmt.Sprint(id)] = stack
		}
	}
	return all
}
