package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/locum-ha/locum/forward/upstream"
)

// maxStreams is how many connections one address of a byte-stream application has at a time; more wait in the system's queue.
const maxStreams = 16 << 10

// streamListener is one address at which clients of a byte-stream application come.
type streamListener struct {
	ln     net.Listener
	router http.Handler
	log    *slog.Logger
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

func newStreamListener(address string, router http.Handler, log *slog.Logger) (*streamListener, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", address, err)
	}
	l := &streamListener{ln: ln, router: router, log: log, slots: make(chan struct{}, maxStreams), conns: map[net.Conn]struct{}{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

func (l *streamListener) addr() net.Addr { return l.ln.Addr() }

// run takes connections until shutdown, and then returns nil.
func (l *streamListener) run() error {
	pause := time.Duration(0)
	for {
		l.slots <- struct{}{}
		nc, err := l.ln.Accept()
		switch {
		case err == nil && l.add(nc):
			pause = 0
			go l.serve(nc)
			continue
		case err == nil:
			_ = nc.Close()
			return nil
		}
		<-l.slots
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		// Out of file descriptors, most likely: it passes.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		l.log.Warn("connection not taken", "listener", l.ln.Addr().String(), "error", err)
		select {
		case <-time.After(pause):
		case <-l.ctx.Done():
			return nil
		}
	}
}

func (l *streamListener) add(nc net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[nc] = struct{}{}
	l.wg.Add(1)
	return true
}

func (l *streamListener) serve(nc net.Conn) {
	defer func() {
		l.mu.Lock()
		delete(l.conns, nc)
		l.mu.Unlock()
		<-l.slots
		l.wg.Done()
	}()
	upstream.ServeStream(l.ctx, l.router, nc)
}

// shutdown takes no more connections, lets those that are there end until ctx does, and cuts the rest.
func (l *streamListener) shutdown(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.ln.Close()
	over := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(over)
	}()
	// A byte stream has no end of its own: what is left of it is ended after a moment, not after the limit.
	settle := time.NewTimer(time.Second)
	defer settle.Stop()
	select {
	case <-over:
	case <-settle.C:
	case <-ctx.Done():
	}
	l.cancel()
	l.mu.Lock()
	for nc := range l.conns {
		_ = nc.Close()
	}
	l.mu.Unlock()
	<-over
}
