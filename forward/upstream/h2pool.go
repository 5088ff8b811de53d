package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/locum-ha/locum/internal/gather"
	"github.com/locum-ha/locum/internal/quickio"
)

// http2 passes requests on over HTTP/2: many on one connection.
type http2 struct {
	u      *Upstream
	scheme string

	mu      sync.Mutex
	conns   []*h2conn
	dialing *dialing // nil: nobody
}

// dialing is a connection that is being made; others wait for it.
type dialing struct {
	done chan struct{}
	err  error
}

func newHTTP2(u *Upstream) *http2 {
	h := &http2{u: u, scheme: "http"}
	if u.tls != nil {
		h.scheme = "https"
	}
	return h
}

// dial makes the bytes' way. What is written is gathered.
func (h *http2) dial(ctx context.Context) (net.Conn, error) {
	nc, err := h.u.dial(ctx)
	if err != nil {
		return nil, err
	}
	nc = gather.NewConn(quickio.Conn(nc))
	if h.u.tls == nil {
		return nc, nil
	}
	c, err := h.u.secure(ctx, nc)
	if err != nil {
		return nil, err
	}
	if c.ConnectionState().NegotiatedProtocol != "h2" {
		_ = c.Close()
		h.u.negotiated.Store(0) // another application listens there now
		return nil, errors.New("upstream: the application speaks HTTP/2 no more")
	}
	return c, nil
}

// pick returns a connection with room for one more request, reserved, and makes one if there is none. The error says that nothing was sent.
func (h *http2) pick(ctx context.Context) (*h2conn, error) {
	for {
		h.mu.Lock()
		for _, c := range h.conns {
			if c.reserve() {
				h.mu.Unlock()
				return c, nil
			}
		}
		if d := h.dialing; d != nil {
			h.mu.Unlock()
			select {
			case <-d.done:
			case <-ctx.Done():
				return nil, &notSent{context.Cause(ctx)}
			}
			if d.err != nil {
				return nil, &notSent{d.err}
			}
			continue
		}
		if len(h.conns) >= h.u.cfg.MaxConns {
			h.mu.Unlock()
			return nil, &notSent{errBusy}
		}
		d := &dialing{done: make(chan struct{})}
		h.dialing = d
		h.mu.Unlock()
		if err := h.add(ctx, d); err != nil {
			return nil, &notSent{err}
		}
	}
}

// add makes one connection more. Who waits for it learns what came of it, but for the end of ctx, which is this request's own.
func (h *http2) add(ctx context.Context, d *dialing) error {
	c, err := h.connect(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dialing = nil
	if err == nil {
		h.conns = append(h.conns, c)
	} else if ctx.Err() == nil {
		d.err = err
	}
	close(d.done)
	return err
}

func (h *http2) forget(c *h2conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns = slices.DeleteFunc(h.conns, func(o *h2conn) bool { return o == c })
}

// close gives up what nobody uses; the others end with their requests.
func (h *http2) close() {
	h.mu.Lock()
	conns := slices.Clone(h.conns)
	h.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		c.last = true
		over := c.unused()
		c.mu.Unlock()
		h.forget(c)
		if over {
			c.close()
		}
	}
}

// send opens a call for r.
func (h *http2) send(r *http.Request, s *call, body bool) error {
	c, err := h.pick(r.Context())
	if err != nil {
		return err
	}
	return c.open(r, s, body)
}
