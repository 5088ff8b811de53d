package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/gather"
)

const (
	// flushAfter is how long an answer over HTTP/2 may be gathered before it turns out to be a stream, whose parts are
	// then passed on one by one.
	flushAfter = 500 * time.Microsecond

	// stillness: a gRPC call in which nothing was said for so long when the node steps down has no end of its own.
	stillness = time.Second
)

// http2 passes requests on over HTTP/2.
type http2 struct {
	u         *Upstream
	transport *http.Transport
	scheme    string
}

func newHTTP2(u *Upstream) *http2 {
	protocols := new(http.Protocols)
	h := &http2{u: u, scheme: "http"}
	t := &http.Transport{
		Protocols: protocols, DisableCompression: true, MaxIdleConnsPerHost: u.cfg.MaxIdle, IdleConnTimeout: u.cfg.IdleTimeout,
		MaxResponseHeaderBytes: int64(u.cfg.MaxHeaderBytes),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second,
			MaxReceiveBufferPerConnection: 16 << 20, MaxReceiveBufferPerStream: 1 << 20,
		},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, err := u.dial(ctx)
			if err != nil {
				return nil, &notSent{err}
			}
			return gather.NewConn(nc), nil
		},
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, err := u.dial(ctx)
			if err != nil {
				return nil, &notSent{err}
			}
			c, err := u.secure(ctx, gather.NewConn(nc))
			if err != nil {
				return nil, &notSent{err}
			}
			if c.ConnectionState().NegotiatedProtocol != "h2" {
				_ = c.Close()
				u.negotiated.Store(0) // another application listens there now
				return nil, &notSent{errors.New("upstream: the application speaks HTTP/2 no more")}
			}
			return c, nil
		},
	}
	protocols.SetUnencryptedHTTP2(u.tls == nil)
	protocols.SetHTTP2(u.tls != nil)
	if u.tls != nil {
		h.scheme = "https"
		t.TLSClientConfig = &tls.Config{NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	}
	h.transport = t
	return h
}

// notSent: there was no connection, so nothing was delivered.
type notSent struct{ error }

func (e *notSent) Unwrap() error { return e.error }

func (h *http2) close() { h.transport.CloseIdleConnections() }

// request is what is sent for r.
func (h *http2) request(r *http.Request, body io.ReadCloser) *http.Request {
	out := (&http.Request{
		Method: r.Method, Host: r.Host, Body: body, ContentLength: r.ContentLength, Trailer: r.Trailer,
		URL:    &url.URL{Scheme: h.scheme, Host: "application", Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery},
		Header: make(http.Header, len(r.Header)),
	}).WithContext(r.Context())
	listed := r.Header["Connection"]
	for name, values := range r.Header {
		switch {
		case name == "Te" && hasToken(values, "trailers"):
			out.Header["Te"] = []string{"trailers"} // which gRPC insists on
		case dropped(name) || name == "Content-Length" || name == "Expect" || len(listed) > 0 && hasToken(listed, name):
		default:
			out.Header[name] = values
		}
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // none was sent, and none is made up
	}
	return out
}

func (u *Upstream) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	if upgradeOf(r) != "" {
		fail(w, http.StatusNotImplemented, "the application speaks HTTP/2, which has no upgrades", "no")
		return
	}
	s := &stream{u: u, w: w, r: r, ctl: http.NewResponseController(w), grpc: isGRPC(r.Header)}
	var body io.ReadCloser
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		_ = s.ctl.EnableFullDuplex()
		s.body = &watchedBody{s: s, ReadCloser: r.Body}
		body = s.body
		defer s.body.finish()
	}
	resp, err := u.h2.transport.RoundTrip(u.h2.request(r, body))
	if err != nil {
		s.noAnswer(err)
		return
	}
	defer resp.Body.Close()
	s.relay(resp)
}

func isGRPC(h http.Header) bool {
	ct := h["Content-Type"]
	return len(ct) > 0 && strings.HasPrefix(ct[0], "application/grpc")
}

// A stream is one request over HTTP/2 and its answer.
type stream struct {
	u    *Upstream
	w    http.ResponseWriter
	r    *http.Request
	ctl  *http.ResponseController
	grpc bool
	body *watchedBody // nil: none
	last atomic.Int64 // when anything was said: Unix nanoseconds; only kept once the answer is a stream

	mu      sync.Mutex // over w, once the answer has begun
	gone    bool       // w must not be touched any more
	pending bool       // something is gathered
	live    bool       // a stream: nothing is gathered
	watch   sync.WaitGroup
	over    chan struct{} // closed at the end; nil unless somebody watches
}

// noAnswer: it is certain that nothing was delivered, or it is not.
func (s *stream) noAnswer(err error) {
	var none *notSent
	switch {
	case errors.As(err, &none):
		s.u.unreachable(s.w, s.r, err)
	case s.body != nil && s.body.failed() != nil && s.r.Context().Err() == nil:
		badBody(s.w, s.body.failed())
	default:
		s.u.broke(s.w, s.r, err)
	}
}

func (s *stream) relay(resp *http.Response) {
	h := s.w.Header()
	copyHeader(h, resp.Header)
	if _, ok := resp.Header["Content-Type"]; !ok {
		h["Content-Type"] = nil
	}
	declared := announce(h, resp.Trailer)
	s.w.WriteHeader(resp.StatusCode)
	s.pending = true
	timer := time.AfterFunc(flushAfter, s.flush)
	err := s.copy(resp.Body)
	timer.Stop()
	s.end()
	switch {
	case err == nil:
		trail(h, resp.Trailer, declared)
	case s.grpc:
		// A status says more than a broken stream: the client may call again, elsewhere.
		h[http.TrailerPrefix+"Grpc-Status"] = []string{"14"} // UNAVAILABLE
		h[http.TrailerPrefix+"Grpc-Message"] = []string{s.farewell(err)}
	default:
		s.u.log.Debug("answer broken off", "error", err)
		panic(http.ErrAbortHandler)
	}
}

func (s *stream) farewell(err error) string {
	if cause := context.Cause(s.r.Context()); cause != nil {
		return "this node is not active any more"
	}
	return fmt.Sprintf("the application broke off: %.100q", err.Error())
}

func (s *stream) copy(body io.Reader) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			if werr := s.write((*buf)[:n]); werr != nil {
				return clientError(werr)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (s *stream) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.Write(p)
	if err == nil && s.live {
		s.last.Store(time.Now().UnixNano())
		return s.ctl.Flush()
	}
	return err
}

// flush runs when the answer has not ended soon: it is a stream.
func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.live = true
	s.last.Store(time.Now().UnixNano())
	_ = s.ctl.Flush() // a broken connection shows at the next write
	if draining := forward.Draining(s.r.Context()); s.grpc && draining != nil {
		s.over = make(chan struct{})
		s.watch.Go(func() { s.awaitDrain(draining) })
	}
}

// awaitDrain ends a call in which nothing is said when the node steps down: a subscription, which has no end of its own.
func (s *stream) awaitDrain(draining <-chan struct{}) {
	select {
	case <-draining:
	case <-s.over:
		return
	}
	tick := time.NewTicker(stillness / 20)
	defer tick.Stop()
	for time.Since(time.Unix(0, s.last.Load())) < stillness {
		select {
		case <-tick.C:
		case <-s.over:
			return
		}
	}
	forward.Endless(s.r.Context())
}

// end keeps everybody else from the answer.
func (s *stream) end() {
	s.mu.Lock()
	s.gone = true
	over := s.over
	s.mu.Unlock()
	if over != nil {
		close(over)
	}
	s.watch.Wait()
}

// watchedBody notes that the client says something, and is not read after the request has been answered.
type watchedBody struct {
	io.ReadCloser
	s       *stream
	reading sync.Mutex
	err     atomic.Pointer[error]
	closed  atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.s.last.Store(time.Now().UnixNano())
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.err.Store(&err)
	}
	return n, err
}

// Close is called by the transport; the client's body is closed by its server.
func (b *watchedBody) Close() error { return nil }

// failed is what the client did wrong while it sent the body, nil while nothing.
func (b *watchedBody) failed() error {
	if err := b.err.Load(); err != nil {
		return *err
	}
	return nil
}

// finish waits until nobody reads: the transport may still be at it.
func (b *watchedBody) finish() {
	b.closed.Store(true)
	if !b.reading.TryLock() {
		_ = b.s.ctl.SetReadDeadline(time.Unix(1, 0))
		b.reading.Lock()
	}
	b.reading.Unlock()
}
