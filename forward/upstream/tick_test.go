package upstream

import (
	"bufio"
	"net"
	"testing"
	"time"

	wire "golang.org/x/net/http2"
)

// P12: a connection that is silent although it was pinged is dead; but not right after this process did not run for a while: what the application
// has answered may be there, unread.
func TestTickAfterAStall(t *testing.T) {
	for name, tc := range map[string]struct {
		late time.Duration
		dead bool
	}{"in time": {0, true}, "late": {time.Minute, false}} {
		u, err := New(Config{URL: "h2c://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		defer far.Close()
		c := &h2conn{
			h: newHTTP2(u), nc: near, fr: wire.NewFramer(near, bufio.NewReader(near)), calls: map[uint32]*call{1: {wake: make(chan struct{}, 1)}},
			pinged: true, due: time.Now().Add(-tc.late), timer: time.AfterFunc(time.Hour, func() {}),
		}
		c.room.L = &c.mu
		c.calls[1].c = c
		go func() { _, _ = far.Read(make([]byte, 100)) }() // the next ping
		c.tick()
		c.timer.Stop()
		if dead := c.err != nil; dead != tc.dead {
			t.Errorf("%s: dead: %v", name, dead)
		}
	}
}
