package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/forward/keyed"
	"github.com/locum-ha/locum/forward/upstream"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/listener"
)

// serving is the way of one application's requests on this node: its listeners, a router of its own, so that no
// application's waiting or slow requests take room or time from another's, and the upstream.
type serving struct {
	s      *Server
	cfg    config.Application
	router *forward.Router
	up     *upstream.Upstream

	listeners []*listener.Listener
	streams   []*streamListener
	left      atomic.Pointer[time.Time] // when this node last ceased to be active; nil: never
}

// appWindows bounds what one standby's connection for one application may have received and not yet passed on: as many
// WebSockets as there may be requests, each with the least that one may send. What is idle takes nothing of it.
const appWindows = 320 << 20

// openServing makes the ways of all applications that clients come to through Locum, and opens their listeners.
func (s *Server) openServing() error {
	for _, a := range s.cfg.Applications {
		if len(a.Listen) == 0 {
			continue
		}
		sv, err := s.newServing(a)
		if err != nil {
			return fmt.Errorf("application %q: %w", a.Name, err)
		}
		s.serving = append(s.serving, sv)
		if err := sv.listen(); err != nil {
			s.closeServing(s.lifetime)
			return fmt.Errorf("application %q: %w", a.Name, err)
		}
	}
	return nil
}

func (s *Server) newServing(a config.Application) (*serving, error) {
	sv := &serving{s: s, cfg: a}
	cfg, err := s.upstreamConfig(&a)
	if err != nil {
		return nil, err
	}
	if sv.up, err = upstream.New(cfg); err != nil {
		return nil, err
	}
	sv.router, err = forward.NewRouter(s.appRouterConfig(&a))
	return sv, err
}

// upstreamConfig is the application's block as package upstream has it.
func (s *Server) upstreamConfig(a *config.Application) (upstream.Config, error) {
	cfg := upstream.Config{
		URL: a.Upstream, Node: s.cfg.NodeName, ProxyProtocol: a.ProxyProtocol, Logger: s.log.With("application", a.Name), Observer: s.metrics.Upstream(a.Name),
	}
	if a.UpstreamCAFile != "" {
		pem, err := os.ReadFile(a.UpstreamCAFile)
		if err != nil {
			return cfg, fmt.Errorf("upstream_ca_file: %w", err)
		}
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		if !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return cfg, fmt.Errorf("upstream_ca_file %s holds no PEM certificate", a.UpstreamCAFile)
		}
	}
	return cfg, nil
}

// appRouterConfig is the application's block as package forward has it.
func (s *Server) appRouterConfig(a *config.Application) forward.Config {
	f := s.cfg.Forwarding
	mode := forward.ModeForward
	if s.cfg.Redirects(a) {
		mode = forward.ModeRedirect
	}
	observer := s.metrics.Forward()
	observer.Connected = nil // the nodes' connections are counted by the router of the API
	return forward.Config{
		Node: s.cfg.NodeName, NodeID: s.id, APIAddr: s.cfg.AddressOf(a), Mode: mode,
		HoldTimeout: f.HoldTimeout, HoldMaxRequests: orNone(f.HoldMaxRequests), HoldMaxBytes: orNone(int64(f.HoldMaxBytes)),
		RetryBuffer: orNone(int64(f.RetryBuffer)), MaxBody: int64(a.MaxRequestSize), WindowBudget: appWindows,
		RepeatMethods: a.RepeatMethods, Repeatable: keyed.Keyed, TrustForwarded: listener.Authorized, SetForwarded: true,
		Logger: s.log.With("application", a.Name, "part", "forward"), Observer: observer,
	}
}

// listen opens the application's addresses.
func (sv *serving) listen() error {
	for _, address := range sv.cfg.Listen {
		if sv.up.Stream() {
			l, err := newStreamListener(address, http.HandlerFunc(sv.serve), sv.s.log.With("application", sv.cfg.Name))
			if err != nil {
				return err
			}
			sv.streams = append(sv.streams, l)
			continue
		}
		l, err := listener.New(sv.listenerConfig(address))
		if err != nil {
			return err
		}
		if err := l.Open(); err != nil {
			return err
		}
		sv.listeners = append(sv.listeners, l)
	}
	return nil
}

// listenerConfig is the application's block as package listener has it.
func (sv *serving) listenerConfig(address string) listener.Config {
	defaults := config.NewListener("tcp")
	cfg := listener.Config{
		Network: "tcp", Address: address, Handler: http.HandlerFunc(sv.serve), Logger: sv.s.log.With("application", sv.cfg.Name, "part", "listener"),
		ReadHeaderTimeout: defaults.HTTPReadHeaderTimeout, IdleTimeout: defaults.HTTPIdleTimeout,
		MinBodyRate: int64(defaults.HTTPMinBodyRate), Streams: true, MaxHeaderBytes: int(defaults.MaxHeaderBytes),
	}
	cfg.Forwarders.Prefixes = sv.cfg.AuthorizedProxies()
	if sv.cfg.TLSCertFile != "" {
		cfg.TLS = &listener.TLS{
			CertFile: sv.cfg.TLSCertFile, KeyFile: sv.cfg.TLSKeyFile, ClientCAFile: sv.cfg.TLSClientCAFile, MinVersion: tls.VersionTLS12,
		}
	}
	return cfg
}

// serve is what a client's request passes first. A connection from before this node ceased to be active is ended as its
// protocol has it, after the answer (HTTP/1.1) or by GOAWAY (HTTP/2): its client may find a shorter way.
func (sv *serving) serve(w http.ResponseWriter, r *http.Request) {
	if sv.s.static == nil && sv.s.Sealed() {
		// Until somebody comes with the shares: no request waits for that. A node that opens itself does so in a moment.
		answerJSON(w, http.StatusServiceUnavailable, map[string]any{"errors": []string{"this node is sealed"}, "processed": "no"})
		return
	}
	if left := sv.left.Load(); left != nil && listener.Connected(r).Before(*left) {
		w.Header()["Connection"] = []string{"close"}
	}
	sv.router.ServeHTTP(w, r)
}

// servingParts is how many of the parts that runServing runs can fail.
func (s *Server) servingParts() int {
	n := 0
	for _, sv := range s.serving {
		n += 1 + len(sv.listeners) + len(sv.streams)
	}
	return n
}

// runServing runs routers and listeners for as long as the node does.
func (s *Server) runServing(failed chan<- error) {
	for _, sv := range s.serving {
		s.wg.Go(func() {
			if err := sv.router.Run(s.lifetime); err != nil {
				failed <- fmt.Errorf("router of application %q: %w", sv.cfg.Name, err)
			}
		})
		for _, l := range sv.listeners {
			s.wg.Go(func() {
				if err := l.Serve(); err != nil {
					failed <- fmt.Errorf("listener %s of application %q: %w", l.Addr(), sv.cfg.Name, err)
				}
			})
		}
		for _, l := range sv.streams {
			s.wg.Go(func() {
				if err := l.run(); err != nil {
					failed <- fmt.Errorf("listener %s of application %q: %w", l.addr(), sv.cfg.Name, err)
				}
			})
		}
	}
}

// closeServing lets requests in flight end until ctx does, and closes.
func (s *Server) closeServing(ctx context.Context) {
	var all sync.WaitGroup
	for _, sv := range s.serving {
		for _, l := range sv.listeners {
			all.Go(func() {
				if err := l.Shutdown(ctx); err != nil {
					s.log.Warn("connections cut at the end", "application", sv.cfg.Name, "listener", l.Addr().String(), "error", err)
				}
			})
		}
		for _, l := range sv.streams {
			all.Go(func() { l.shutdown(ctx) })
		}
	}
	all.Wait()
	for _, sv := range s.serving {
		sv.up.Close()
	}
}

// loadServing reads the certificates again; the functions put them in force.
func (s *Server) loadServing() (uses []func(), errs []error) {
	for _, sv := range s.serving {
		for _, l := range sv.listeners {
			use, err := l.Load()
			uses, errs = append(uses, use), append(errs, err)
		}
	}
	return uses, errs
}

// addresses are where clients reach the applications on this node, for the advertisement.
func (s *Server) appAddresses() map[string]string {
	m := map[string]string{}
	for _, sv := range s.serving {
		if addr := s.cfg.AddressOf(&sv.cfg); addr != "" {
			m[sv.cfg.Name] = addr
		}
	}
	return m
}

// followServing brings the applications' requests to the node that an advertisement names.
func (s *Server) followServing(ad *cluster.Advertisement, addr string, identity *cluster.StandbyIdentity) {
	if len(s.serving) == 0 {
		return
	}
	tlsConfig := identity.AppTLS()
	for _, sv := range s.serving {
		name := sv.cfg.Name
		sv.router.Follow(forward.Target{
			Term: ad.Term, NodeID: ad.NodeID, Name: ad.Name, APIAddr: ad.Applications[name], ClusterAddr: ad.ClusterAddr,
			Dial: func(ctx context.Context) (net.Conn, error) { return dialApp(ctx, addr, tlsConfig, name) },
		})
	}
}

// holdServing and refuseServing tell the applications' routers what the API's was told.
func (s *Server) holdServing(cause string) {
	for _, sv := range s.serving {
		sv.router.Hold(cause)
	}
}

func (s *Server) refuseServing(cause string) {
	for _, sv := range s.serving {
		sv.router.Refuse(cause)
	}
}

// leadServing lets requests for the applications run here. They are healthy.
func (l *leading) leadServing() error {
	u := l.node
	for _, sv := range u.serving {
		h, err := sv.handler(l)
		if err != nil {
			return fmt.Errorf("application %q: %w", sv.cfg.Name, err)
		}
		sv.router.Lead(l.term.Term, l.term.Lease, h)
	}
	return nil
}

// handler is what the active node runs for an application's requests.
func (sv *serving) handler(l *leading) (http.Handler, error) {
	if sv.up.Stream() {
		return sv.up, nil
	}
	u := l.node
	cfg := u.keyedConfig(&sv.cfg)
	cfg.Store, cfg.Term, cfg.Deliver = u.barrier.View(&l.term.Fence), l.term.Term, sv.up
	k, err := keyed.New(cfg)
	if err != nil {
		return nil, err
	}
	l.upkeep.Go(func() { k.Run(l.upkeepUntil) })
	return k, nil
}

// keyedConfig is the application's block as package keyed has it.
func (s *Server) keyedConfig(a *config.Application) keyed.Config {
	return keyed.Config{
		Application: a.Name, Own: a.Idempotency == "application", TTL: a.IdempotencyTTL, MaxSize: int(a.IdempotencyMaxSize),
		Deposed: func(r *http.Request, err error) { s.deposed(r, err) }, Logger: s.log.With("application", a.Name), Observer: s.metrics.Keyed(a.Name),
	}
}

// drainServing is the planned way out for the applications' requests: before the API's, which the applications may ask
// meanwhile.
func (u *unsealed) drainServing(ctx context.Context) error {
	errs := make([]error, len(u.serving))
	var all sync.WaitGroup
	for i, sv := range u.serving {
		all.Go(func() {
			sv.leave()
			if err := sv.router.Drain(ctx); err != nil {
				errs[i] = fmt.Errorf("application %q: requests in flight: %w", sv.cfg.Name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// abandonServing is the end of leadership, planned or not.
func (u *unsealed) abandonServing() {
	for _, sv := range u.serving {
		sv.leave()
		sv.router.Abandon()
	}
}

func (sv *serving) leave() {
	now := time.Now()
	sv.left.Store(&now)
}

// The first bytes of a connection of cluster.ALPNApp: a version, then the length of the application's name and the name.
const (
	appVersion = 1
	appPreface = 5 * time.Second
)

// dialApp connects to the active node for one application.
func dialApp(ctx context.Context, addr string, cfg *tls.Config, name string) (net.Conn, error) {
	conn, err := cluster.Dial(ctx, addr, cfg)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append([]byte{appVersion, byte(len(name))}, name...)); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("naming application %q: %w", name, err)
	}
	return conn, nil
}

// openServing lets standbys bring the applications' requests, with the keys of this term.
func (l *leading) openServing(serverTLS *tls.Config) error {
	u := l.node
	if len(u.serving) == 0 {
		return nil
	}
	remove, err := u.port.Handle(cluster.Protocol{
		ALPN: cluster.ALPNApp,
		TLS:  func() *tls.Config { return serverTLS },
		Serve: func(ctx context.Context, conn *tls.Conn) {
			peer := cluster.PeerName(conn)
			name, err := readApp(conn)
			if err == nil {
				err = u.serveApp(ctx, conn, name, peer)
			}
			if err != nil && ctx.Err() == nil {
				u.log.Debug("standby's connection for an application ended", "application", name, "node", peer, "error", err)
			}
		},
	})
	l.unportApps = remove
	return err
}

func readApp(conn *tls.Conn) (string, error) {
	_ = conn.SetReadDeadline(time.Now().Add(appPreface))
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return "", fmt.Errorf("no application named: %w", err)
	}
	if head[0] != appVersion {
		return "", fmt.Errorf("version %d of the naming of applications is not known", head[0])
	}
	name := make([]byte, head[1])
	if _, err := io.ReadFull(conn, name); err != nil {
		return "", fmt.Errorf("no application named: %w", err)
	}
	return string(name), conn.SetReadDeadline(time.Time{})
}

func (u *unsealed) serveApp(ctx context.Context, conn *tls.Conn, name, peer string) error {
	i := slices.IndexFunc(u.serving, func(sv *serving) bool { return sv.cfg.Name == name })
	if i < 0 {
		u.log.Warn("a standby asks for an application that this node does not serve: its configuration differs", "application", name, "node", peer)
		return fmt.Errorf("no application %q here", name)
	}
	return u.serving[i].router.ServeConn(ctx, conn, cluster.PeerID(conn), peer)
}
