package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// served is one forwarded request on the active node: what its handler sees, in one allocation.
type served struct {
	run
	c    *serverConn
	st   *stream
	ctx  runCtx
	req  *http.Request
	body serverBody
	w    responseWriter
	head string // as it arrived
}

// serve decodes the request, runs its handler and ends its answer. The tenure has let it in.
func (s *served) serve() {
	h, err := decodeRequest(s.head)
	if err != nil {
		s.c.fail(err)
		s.finish()
		return
	}
	if err := s.build(&h); err != nil {
		s.c.r.log.Warn("bad request", "request_id", s.info.ID, "error", err)
		s.c.reset(s.st.id, resetAborted, "", flushInline)
		s.finish()
		return
	}
	s.st.open(int(h.window), s.cancel)
	start := time.Now()
	if s.t.valid() && s.c.r.running.enter(&s.ctx, &s.info) {
		if s.ctx.Err() == nil {
			s.handle()
		} else {
			s.w.refuse(resetNotProcessed)
		}
		s.c.r.running.leave(&s.info)
	} else {
		s.w.refuse(resetNotProcessed)
	}
	if !s.w.hijacked {
		s.finish()
	}
	d := time.Since(start)
	s.c.r.cfg.Observer.Local(d, s.w.status)
	s.c.r.logRequest("request run for a standby", &s.info, h.method, s.w.status, d)
}

// handle calls the handler and ends its answer, whatever it does.
func (s *served) handle() {
	defer func() {
		s.body.close()
		if v := recover(); v != nil {
			s.w.panicked(v)
			if v != http.ErrAbortHandler {
				s.c.r.log.Error("handler panicked", "request_id", s.info.ID, "panic", v, "stack", string(debug.Stack()))
			}
		}
	}()
	s.t.handler.ServeHTTP(&s.w, s.req)
	s.w.done()
}

// finish gives back what the request held.
func (s *served) finish() {
	s.leave()
	s.cancel(context.Canceled)
	s.w.release()
	s.c.end(s.st)
}

// build makes the request as the standby's client sent it.
func (s *served) build(h *requestHead) error {
	s.info = Info{
		ID: h.id, Slot: h.slot, Key: h.key, Repeat: h.bits&headRepeat != 0,
		ForwardedBy: s.c.peerName[0], Term: s.t.term, RemoteAddr: h.remoteAddr,
	}
	u, err := parseURI(h.method, h.uri)
	if err != nil {
		return err
	}
	r := http.Request{
		Method: h.method, URL: u,
		ProtoMajor: int(h.protoMajor), ProtoMinor: int(h.protoMinor), Proto: protoName(h.protoMajor, h.protoMinor),
		Header: h.header, Host: h.host, RemoteAddr: h.remoteAddr, RequestURI: h.uri,
		ContentLength: h.contentLength, Body: http.NoBody,
	}
	if u.Host != "" {
		r.Host = u.Host
	}
	h.header["X-Locum-Forwarded-By"] = s.c.peerName
	if len(h.trailers) > 0 {
		r.Trailer = make(http.Header, len(h.trailers))
		for _, name := range h.trailers {
			r.Trailer[name] = nil
		}
	}
	if !s.st.noBody() {
		s.body = serverBody{s: s, expect: h.bits&headExpect != 0}
		r.Body = &s.body
		if h.contentLength < 0 {
			r.TransferEncoding = chunkedEncoding(h.protoMajor)
		}
	}
	if h.bits&headTLS != 0 {
		r.TLS = h.tls.state(h.bits&headVerified != 0)
	}
	s.req = r.WithContext(&s.ctx)
	s.w = responseWriter{
		s: s, contentLength: -1, isHead: h.method == http.MethodHead,
		http1: h.protoMajor == 1, canHijack: h.bits&headHijackable != 0,
	}
	return nil
}

func chunkedEncoding(major uint8) []string {
	if major == 1 {
		return []string{"chunked"}
	}
	return nil
}

func protoName(major, minor uint8) string {
	switch {
	case major == 1 && minor == 1:
		return "HTTP/1.1"
	case major == 2 && minor == 0:
		return "HTTP/2.0"
	case major == 1 && minor == 0:
		return "HTTP/1.0"
	case major == 3:
		return "HTTP/3.0"
	default:
		return "HTTP/" + string('0'+rune(major%10)) + "." + string('0'+rune(minor%10))
	}
}

// parseURI does what net/http does with a request line.
func parseURI(method, uri string) (*url.URL, error) {
	if method == http.MethodConnect && !strings.HasPrefix(uri, "/") {
		u, err := url.ParseRequestURI("http://" + uri)
		if err == nil {
			u.Scheme = ""
		}
		return u, err
	}
	return url.ParseRequestURI(uri)
}

// state rebuilds what a handler may ask about the client's connection. A chain counts as verified if
// the standby, that the client spoke to, has verified it.
func (t *tlsInfo) state(verified bool) *tls.ConnectionState {
	cs := &tls.ConnectionState{
		Version: uint16(t.version), CipherSuite: uint16(t.cipher), HandshakeComplete: true,
		ServerName: t.serverName, NegotiatedProtocol: t.alpn,
	}
	for _, der := range t.chain {
		cert, err := parseCertificate(der)
		if err != nil {
			return cs // the standby has parsed it before: not worth more than its absence
		}
		cs.PeerCertificates = append(cs.PeerCertificates, cert)
	}
	if verified && len(cs.PeerCertificates) > 0 {
		cs.VerifiedChains = [][]*x509.Certificate{cs.PeerCertificates}
	}
	return cs
}

// certificates remembers the last ones parsed: a client sends the same one with every request.
var certificates struct {
	mu sync.Mutex
	m  map[string]*x509.Certificate
}

const maxCertificates = 1024

func parseCertificate(der string) (*x509.Certificate, error) {
	certificates.mu.Lock()
	cert := certificates.m[der]
	certificates.mu.Unlock()
	if cert != nil {
		return cert, nil
	}
	cert, err := x509.ParseCertificate([]byte(der))
	if err != nil {
		return nil, err
	}
	certificates.mu.Lock()
	defer certificates.mu.Unlock()
	if certificates.m == nil || len(certificates.m) >= maxCertificates {
		certificates.m = make(map[string]*x509.Certificate)
	}
	certificates.m[strings.Clone(der)] = cert
	return cert, nil
}
