package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
)

// authorizeWithin bounds the check of a token on a status path, so that it never hangs (P10).
const authorizeWithin = 2 * time.Second

// bootstrapBase is where nodes that join prove that they have the root key; the active node answers them.
const bootstrapBase = "/v1/sys/storage/raft/bootstrap/"

// openBases is what the active node answers without a token; below internal/ are what a node that was invited, and one that starts an
// application, ask for with proofs of their own (package server).
var openBases = []string{bootstrapBase, generateRootBase, rekeyBase, "/v1/sys/internal/invitation/", "/v1/sys/internal/application-token"}

// local answers what the node asked answers itself.
type local struct {
	responder
	node    Node
	next    http.Handler
	routes  map[string]*route
	limiter *limiter
	scrape  http.HandlerFunc // nil without metrics
}

// Local answers the paths that the node asked answers itself, in every state (P10), and gives the rest to next; while
// the node is sealed or not initialised the rest is answered 503.
func Local(node Node, cfg Config, next http.Handler) http.Handler {
	cfg.Deposed = nil // these answers are this node's own, whatever its role
	l := &local{responder: responder{cfg.withDefaults()}, node: node, next: next, limiter: newLimiter(cfg.RateLimit, cfg.ClientAddr)}
	const status = "status"
	l.routes = map[string]*route{
		"/v1/sys/health":            {class: status, open: true, on: get(l.health)},
		"/v1/sys/live":              {class: status, open: true, on: probe(l.live)},
		"/v1/sys/ready":             {class: status, open: true, on: probe(l.ready)},
		"/v1/sys/active":            {class: status, open: true, on: probe(l.active)},
		"/v1/sys/standby":           {class: status, open: true, on: probe(l.standby)},
		"/v1/sys/leader":            {class: status, open: true, on: get(l.leader)},
		"/v1/system/leader":         {class: status, open: true, on: get(l.systemLeader)},
		"/v1/sys/cache":             {class: status, open: true, on: get(l.cacheStatus)},
		"/v1/sys/seal-status":       {class: status, open: true, on: get(l.sealStatus)},
		"/v1/sys/init":              {class: "init", open: true, on: get(l.initialized).with(both(l.init))},
		"/v1/sys/unseal":            {class: "init", open: true, on: both(l.unseal)},
		"/v1/sys/storage/raft/join": {class: "init", open: true, on: both(l.join)},
	}
	if l.cfg.Metrics != nil {
		l.scrape = l.scraped()
		l.routes["/v1/sys/metrics"] = &route{class: status, open: cfg.OpenMetrics, on: get(l.metrics)}
	}
	return l
}

// probe answers GET, HEAD and OPTIONS alike: load balancers use any of them.
func probe(h http.HandlerFunc) methods {
	return methods{http.MethodGet: h, http.MethodHead: h, http.MethodOptions: h}
}

func (l *local) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// All paths here begin alike: an entry's path is not looked up.
	if strings.HasPrefix(r.URL.Path, "/v1/sys") {
		if rt := l.routes[r.URL.Path]; rt != nil {
			l.observed(rt.class, w, r, func(w http.ResponseWriter, r *http.Request) {
				// What is asked by GET is a status.
				if rt.class == "init" && !Safe(r) && l.limited(w, r) {
					return
				}
				l.run(rt, w, r)
			})
			return
		}
		if slices.ContainsFunc(openBases, func(base string) bool { return strings.HasPrefix(r.URL.Path, base) }) && l.limited(w, r) {
			return
		}
	}
	if r.URL.Path == resumePath && l.resumed(w, r) {
		return
	}
	if l.node.Sealed() {
		l.fail(w, r, sealedAnswer(l.node.Status().Initialized))
		return
	}
	l.next.ServeHTTP(w, r)
}

// metrics gives the node's own numbers: nobody else's are of use to who asked this one.
func (l *local) metrics(w http.ResponseWriter, r *http.Request) {
	if !l.cfg.OpenMetrics {
		if l.node.Sealed() {
			l.fail(w, r, Errorf(http.StatusServiceUnavailable, "metrics need a token, and a sealed node cannot check one: unseal it, or set telemetry { unauthenticated_metrics_access = true }"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), authorizeWithin)
		defer cancel()
		if err := l.node.Authorize(ctx, TokenOf(r), Access{Path: "sys/metrics", Op: Read}); err != nil {
			l.deny(w, r, err)
			return
		}
	}
	l.scrape(w, r)
}

// scrapesAtOnce bounds the answers with metrics that are made at one time: each is built in memory (P12).
const scrapesAtOnce = 4

// scraped serves the metrics to a few at a time.
func (rs responder) scraped() http.HandlerFunc {
	under := make(chan struct{}, scrapesAtOnce)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case under <- struct{}{}:
			defer func() { <-under }()
			header(w, http.StatusOK)
			rs.cfg.Metrics.ServeHTTP(w, r)
		default:
			rs.fail(w, r, Errorf(http.StatusServiceUnavailable, "%d scrapes of the metrics are under way: ask again in a second, or less often", scrapesAtOnce))
		}
	}
}
