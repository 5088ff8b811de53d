package election

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// What the election is told while it begins reaches it, and does not stop it (P12): the callers here wait with Run for one
// lock, so that some come before it and some after.
func TestToldWhileItBegins(t *testing.T) {
	for range 20 {
		n := newNode(t, "id-a", newFakeStore(3*time.Second), nil)
		var telling sync.WaitGroup
		n.watch.Lock()
		for i := range 8 {
			telling.Go(func() { n.Hurry(true) })
			if i == 3 {
				n.start(t)
			}
		}
		for range 100 {
			runtime.Gosched()
		}
		n.watch.Unlock()
		over := make(chan struct{})
		go func() {
			defer close(over)
			telling.Wait()
			n.cancel()
			<-n.ended
		}()
		select {
		case <-over:
		case <-time.After(10 * time.Second):
			t.Fatal("the election and its callers wait for one another")
		}
	}
}
