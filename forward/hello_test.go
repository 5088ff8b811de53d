package forward

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What a node says of itself reaches the other side when it has changed, and not with the next echo only.
func TestHelloChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type end struct {
			says  atomic.Pointer[string]
			hears atomic.Pointer[string]
			*Router
		}
		node := func(id string) (*end, func()) {
			e := &end{}
			say := "first words of " + id
			e.says.Store(&say)
			r, stop := inBubble(t, func(c *Config) {
				c.Node, c.NodeID = id, id
				c.Hello = func() []byte { return []byte(*e.says.Load()) }
				c.OnHello = func(_ string, hello []byte, _, _ time.Duration) {
					heard := string(hello)
					e.hears.Store(&heard)
				}
			})
			e.Router = r
			return e, stop
		}
		active, stopActive := node("a")
		defer stopActive()
		standby, stopStandby := node("b")
		defer stopStandby()
		active.Lead(1, newLease(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		defer serving.Wait()
		defer cancel()
		standby.Follow(Target{Term: 1, NodeID: "a", Name: "a", Dial: func(context.Context) (net.Conn, error) {
			mine, theirs := net.Pipe()
			serving.Go(func() { _ = active.ServeConn(ctx, theirs, "b", "b") })
			return mine, nil
		}})
		time.Sleep(10*echoInterval + echoInterval/2) // in the middle between two echoes
		for _, way := range []struct{ from, to *end }{{active, standby}, {standby, active}} {
			for _, say := range []string{"something else", "and yet another thing"} {
				way.from.says.Store(&say)
				began := time.Now()
				way.from.HelloChanged()
				synctest.Wait()
				if heard := *way.to.hears.Load(); heard != say || time.Since(began) != 0 {
					t.Errorf("heard %q, said %q", heard, say)
				}
			}
		}
		if rtt := active.Peers()[0].RTT; rtt != 0 {
			t.Errorf("the round trip that is known became %s", rtt)
		}
	})
}
