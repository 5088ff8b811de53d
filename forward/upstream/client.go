package upstream

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/url"
)

// ServeStream brings a client's connection to a byte-stream application, by way of a router, and returns when the connection
// is closed. The router sees a safe request without a body, which it may hold, decline and send again like any other, until the handler
// on the active node takes the connection over: before that, nothing of the client's was read.
func ServeStream(ctx context.Context, router http.Handler, nc net.Conn) {
	w := &streamWriter{nc: nc}
	r := (&http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/"}, RequestURI: "/", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody, RemoteAddr: nc.RemoteAddr().String(), Host: nc.LocalAddr().String(),
	}).WithContext(ctx)
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler {
			panic(v)
		}
		if w.refused {
			abort(nc) // no active node: the client must not take it for an empty answer
		}
		_ = nc.Close()
	}()
	router.ServeHTTP(w, r)
}

// streamWriter is the answer to a byte stream: there is none, but the connection can be taken over.
type streamWriter struct {
	nc      net.Conn
	header  http.Header
	refused bool
}

func (w *streamWriter) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *streamWriter) WriteHeader(int) { w.refused = true }

func (w *streamWriter) Write(p []byte) (int, error) {
	w.refused = true
	return len(p), nil
}

func (w *streamWriter) Flush() {}

// Hijack implements http.Hijacker. The reader is small: it reads nothing ahead that somebody would want in one piece.
func (w *streamWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.nc, bufio.NewReadWriter(bufio.NewReaderSize(w.nc, 16), nil), nil
}
