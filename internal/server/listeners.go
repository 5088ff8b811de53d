package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
)

// Limits against slow clients. Bodies have none: uploads and streams may take as long as they move.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 5 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// listener is one address that the API is served on.
type listener struct {
	config config.Listener
	ln     net.Listener
	server *http.Server
	cert   atomic.Pointer[tls.Certificate]
}

// listen opens all listeners.
func (s *Server) listen() error {
	handler := s.handler()
	for _, c := range s.cfg.Listeners {
		l, err := newListener(c, handler, s.log)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// handler is what every request passes: the paths that this node answers itself, then the router.
func (s *Server) handler() http.Handler {
	cfg := s.apiConfig()
	cfg.Metrics = s.metrics.Handler()
	cfg.ClientAddr = s.clientAddr()
	cfg.OpenMetrics = s.cfg.Telemetry.UnauthenticatedMetricsAccess
	return api.Local(s, cfg, s.steppingDown(s.router))
}

// apiConfig is shared by what every node and what the active node serves.
func (s *Server) apiConfig() api.Config {
	return api.Config{
		Logger: s.log.With("part", "api"),
		RequestInfo: func(ctx context.Context) api.RequestInfo {
			info := forward.InfoFrom(ctx)
			return api.RequestInfo{ID: info.ID, Slot: info.Slot, Key: info.Key, Repeat: info.Repeat}
		},
		Deposed:  s.deposed,
		Observer: s.metrics.API(),
	}
}

// deposed gives a request that the store refused, or whose outcome it did not tell, back to the router, which brings it
// to the node that is active by then, or answers that nobody knows.
func (s *Server) deposed(r *http.Request, err error) bool {
	if errors.Is(err, physical.ErrFenced) {
		// Another term may write: this one is over, whatever its lease says.
		if u := s.life.Load(); u != nil {
			if l := u.leading.Load(); l != nil && l.term.Term == forward.InfoFrom(r.Context()).Term {
				l.term.Abort(err)
			}
		}
	}
	if errors.Is(err, physical.ErrUnknown) {
		forward.Disown(r.Context())
	} else {
		forward.Decline(r.Context())
	}
	return true
}

func newListener(c config.Listener, handler http.Handler, log *slog.Logger) (*listener, error) {
	l := &listener{config: c}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(c.TLSDisable)
	l.server = &http.Server{
		Handler: handler, Protocols: protocols,
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.With("part", "listener").Handler(), slog.LevelDebug),
	}
	if !c.TLSDisable {
		if err := l.loadTLS(); err != nil {
			return nil, err
		}
	}
	var err error
	if l.ln, err = net.Listen("tcp", c.Address); err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	return l, nil
}

// loadTLS reads the certificate and the clients' authorities.
func (l *listener) loadTLS() error {
	if err := l.loadCertificate(); err != nil {
		return err
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return l.cert.Load(), nil
		},
	}
	if l.config.TLSClientCAFile != "" {
		pem, err := os.ReadFile(l.config.TLSClientCAFile)
		if err != nil {
			return fmt.Errorf("tls_client_ca_file: %w", err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tls_client_ca_file %s holds no PEM certificate", l.config.TLSClientCAFile)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	l.server.TLSConfig = cfg
	return nil
}

func (l *listener) loadCertificate() error {
	cert, err := tls.LoadX509KeyPair(l.config.TLSCertFile, l.config.TLSKeyFile)
	if err != nil {
		return fmt.Errorf("tls_cert_file, tls_key_file: %w", err)
	}
	l.cert.Store(&cert)
	return nil
}

// Reload reads the listeners' certificates again. What cannot be read leaves the ones in use.
func (s *Server) Reload() error {
	var errs []error
	for _, l := range s.listeners {
		if !l.config.TLSDisable {
			errs = append(errs, l.loadCertificate())
		}
	}
	return errors.Join(errs...)
}

func (l *listener) serve() error {
	var err error
	if l.config.TLSDisable {
		err = l.server.Serve(l.ln)
	} else {
		err = l.server.ServeTLS(l.ln, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// closeListeners lets requests in flight end, for a while, and closes.
func (s *Server) closeListeners(skip context.Context) {
	ctx, cancel := context.WithTimeout(skip, settleListeners)
	defer cancel()
	for _, l := range s.listeners {
		if err := l.server.Shutdown(ctx); err != nil {
			s.log.Warn("connections cut at the end", "listener", l.config.Address, "error", err)
			l.server.Close()
		}
	}
}

// listenerAddr is the host:port at which this node's API is reached: its first listener, or the host of api_addr where
// that listens on all addresses.
func (s *Server) listenerAddr() string { return advertised(s.cfg.Listeners[0].Address, s.apiAddr) }

// newRouter makes the way of a request on this node.
func (s *Server) newRouter() (*forward.Router, error) {
	f := s.cfg.Forwarding
	mode := forward.ModeForward
	if f.Mode == "redirect" {
		mode = forward.ModeRedirect
	}
	return forward.NewRouter(forward.Config{
		Node: s.cfg.NodeName, NodeID: s.id, APIAddr: s.apiAddr, Mode: mode,
		HoldTimeout: f.HoldTimeout, HoldMaxRequests: f.HoldMaxRequests, HoldMaxBytes: int64(f.HoldMaxBytes),
		RetryBuffer: int64(f.RetryBuffer), MaxBody: int64(s.cfg.Listeners[0].MaxRequestSize),
		RepeatMethods: []string{"LIST"}, // Vault's own method, as safe as GET
		Repeatable:    api.Repeatable, TrustForwarded: s.trusted(),
		Hello: s.hello, OnHello: s.heard,
		Logger: s.log.With("part", "forward"), Observer: s.metrics.Forward(),
	})
}

// trusted tells whether a client may say for whom it forwards: the configured proxies.
func (s *Server) trusted() func(*http.Request) bool {
	var ranges []netip.Prefix
	for _, l := range s.cfg.Listeners {
		ranges = append(ranges, l.AuthorizedProxies()...)
	}
	return func(r *http.Request) bool {
		if len(ranges) == 0 {
			return false
		}
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		return err == nil && slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(from.Addr().Unmap()) })
	}
}

// clientAddr tells whose request it is: the other end of the connection or, where that is a configured proxy, the last
// client that it names and that is none.
func (s *Server) clientAddr() func(*http.Request) netip.Addr {
	var ranges []netip.Prefix
	for _, l := range s.cfg.Listeners {
		ranges = append(ranges, l.AuthorizedProxies()...)
	}
	proxy := func(a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
	}
	return func(r *http.Request) netip.Addr {
		from, _ := netip.ParseAddrPort(r.RemoteAddr)
		addr := from.Addr()
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0 && addr.IsValid() && proxy(addr); i-- {
			before, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			addr = before
		}
		return addr
	}
}

// advertised is the host:port of a listener for others: its own, unless it listens on all addresses or a free port.
func advertised(listen, apiAddr string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		if h := hostOf(apiAddr); h != "" {
			host = h
		}
	}
	return net.JoinHostPort(host, port)
}
