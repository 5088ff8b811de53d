package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/listener"
	"github.com/locum-ha/locum/physical"
)

// listen opens all listeners.
func (s *Server) listen() error {
	handler := s.handler()
	for _, c := range s.cfg.Listeners {
		cfg := listenerConfig(c)
		cfg.Handler, cfg.Logger = handler, s.log.With("part", "listener")
		l, err := listener.New(cfg)
		if err != nil {
			return err
		}
		if err := l.Open(); err != nil {
			s.closeListeners(s.lifetime)
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// listenerConfig is the configuration's block as package listener has it.
func listenerConfig(c config.Listener) listener.Config {
	cfg := listener.Config{
		Network: "tcp", Address: c.Address,
		ReadHeaderTimeout: c.HTTPReadHeaderTimeout, IdleTimeout: c.HTTPIdleTimeout, ReadTimeout: c.HTTPReadTimeout,
		MinBodyRate: int64(c.HTTPMinBodyRate), MaxHeaderBytes: int(c.MaxHeaderBytes),
	}
	if c.Unix() {
		cfg.Network, cfg.Socket = "unix", listener.Socket{Mode: c.Mode(), User: c.SocketUser, Group: c.SocketGroup}
	}
	if !c.TLSDisable {
		cfg.TLS = &listener.TLS{CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ClientCAFile: c.TLSClientCAFile, MinVersion: c.MinTLS()}
	}
	cfg.Forwarders.Prefixes, cfg.Forwarders.Local = c.AuthorizedProxies()
	if c.ProxyProtocol {
		senders, local := c.AuthorizedSenders()
		cfg.Proxies = &listener.Sources{Prefixes: senders, Local: local}
	}
	return cfg
}

// handler is what every request passes: the paths that this node answers itself, then the router.
func (s *Server) handler() http.Handler {
	cfg := s.apiConfig()
	cfg.Metrics = s.metrics.Handler()
	cfg.OpenMetrics = s.cfg.Telemetry.UnauthenticatedMetricsAccess
	return unmarked(api.Local(s, cfg, s.steppingDown(s.router)))
}

// apiConfig is shared by what every node and what the active node serves.
func (s *Server) apiConfig() api.Config {
	var shared *cache.Node
	if s.cache != nil {
		shared = s.cache.node
	}
	return api.Config{
		Logger: s.log.With("part", "api"), Cache: shared,
		RequestInfo: func(ctx context.Context) api.RequestInfo {
			info := forward.InfoFrom(ctx)
			return api.RequestInfo{ID: info.ID, Slot: info.Slot, Key: info.Key, Repeat: info.Repeat}
		},
		Deposed:   s.deposed,
		RateLimit: rateLimit(s.cfg.RateLimit),
		Observer:  s.metrics.API(),
	}
}

// rateLimit is the configuration's block as package api has it.
func rateLimit(c config.RateLimit) api.RateLimit {
	if c.RequestsPerSecond == 0 {
		return api.RateLimit{PerSecond: -1}
	}
	return api.RateLimit{PerSecond: float64(c.RequestsPerSecond), Burst: c.Burst}
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

// Reload reads the listeners' certificates and their clients' authorities again, the applications' and the one for clients of Redis too. If any cannot be used, all stay as they are.
func (s *Server) Reload() error {
	var uses []func()
	var errs []error
	for _, l := range s.listeners {
		use, err := l.Load()
		uses, errs = append(uses, use), append(errs, err)
	}
	if s.cache != nil {
		use, err := s.cache.load()
		uses, errs = append(uses, use), append(errs, err)
	}
	appUses, appErrs := s.loadServing()
	uses, errs = append(uses, appUses...), append(errs, appErrs...)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, use := range uses {
		use()
	}
	return nil
}

// closeListeners lets requests in flight end, for a while, and closes.
func (s *Server) closeListeners(skip context.Context) {
	ctx, cancel := context.WithTimeout(skip, settleListeners)
	defer cancel()
	s.closeServing(ctx) // first: an application may ask the API until its last answer
	for _, l := range s.listeners {
		if err := l.Shutdown(ctx); err != nil {
			s.log.Warn("connections cut at the end", "listener", l.Addr().String(), "error", err)
		}
	}
}

// listenerAddr is the host:port at which this node's API is reached: its first listener on TCP, or the host of api_addr where
// that listens on all addresses.
func (s *Server) listenerAddr() string { return advertised(s.cfg.APIListen(), s.apiAddr) }

// newRouter makes the way of a request on this node.
func (s *Server) newRouter() (*forward.Router, error) {
	f := s.cfg.Forwarding
	mode := forward.ModeForward
	if f.Mode == "redirect" {
		mode = forward.ModeRedirect
	}
	return forward.NewRouter(forward.Config{
		Node: s.cfg.NodeName, NodeID: s.id, APIAddr: s.apiAddr, Mode: mode,
		HoldTimeout: f.HoldTimeout, HoldMaxRequests: orNone(f.HoldMaxRequests), HoldMaxBytes: orNone(int64(f.HoldMaxBytes)),
		RetryBuffer: orNone(int64(f.RetryBuffer)), MaxBody: int64(s.cfg.Listeners[0].MaxRequestSize),
		RepeatMethods: []string{"LIST"}, // Vault's own method, as safe as GET
		Repeatable:    repeatable, TrustForwarded: listener.Authorized,
		Hello: s.hello, OnHello: s.heard,
		Logger: s.log.With("part", "forward"), Observer: s.forwardObserver(),
	})
}

// orNone gives a limit as package forward wants it: the configuration has its defaults, and 0 in it is meant.
func orNone[T int | int64](limit T) T {
	if limit == 0 {
		return forward.None
	}
	return limit
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
