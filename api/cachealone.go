package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/locum-ha/locum/cache"
)

// cacheAlone answers for a node that is a cache and nothing else.
type cacheAlone struct {
	caching
	token    [sha256.Size]byte // its hash
	none     bool              // there is no token: nobody gets at the entries
	stopping func() bool
	routes   map[string]*route
	entry    *route
}

// CacheAlone serves a node that is a cache and nothing else: sys/health, live, ready, active, standby, cache and metrics without a
// token, and the cache's entries with this one; without a token they are closed. Stopping says that the node is about to end.
func CacheAlone(node *cache.Node, token string, stopping func() bool, cfg Config) http.Handler {
	cfg.Cache = node
	a := &cacheAlone{caching: caching{responder{cfg.withDefaults()}, node}, token: sha256.Sum256([]byte(token)), none: token == "", stopping: stopping}
	const status = "status"
	a.routes = map[string]*route{
		"/v1/sys/health":  {class: status, open: true, on: get(a.cacheStatus)},
		"/v1/sys/cache":   {class: status, open: true, on: get(a.cacheStatus)},
		"/v1/sys/live":    {class: status, open: true, on: probe(a.tell("live", func(cache.Health) bool { return true }))},
		"/v1/sys/ready":   {class: status, open: true, on: probe(a.tell("ready", func(h cache.Health) bool { return h.Status != cache.Bad && !stopping() }))},
		"/v1/sys/active":  {class: status, open: true, on: probe(a.tell("active", func(h cache.Health) bool { return h.State == cache.Leads }))},
		"/v1/sys/standby": {class: status, open: true, on: probe(a.tell("standby", func(h cache.Health) bool { return h.State == cache.Follower }))},
		"/v1/cache":       a.names(),
	}
	if a.cfg.Metrics != nil {
		a.routes["/v1/sys/metrics"] = &route{class: status, open: true, on: get(a.scraped())}
	}
	a.entry = a.entries()
	return a
}

// tell answers a probe: 200 or 503, with what the node's state is.
func (a *cacheAlone) tell(what string, is func(cache.Health) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := a.node.Health()
		body := map[string]any{what: is(h), "status": h.Status.String(), "state": h.State.String()}
		if h.Reason != "" {
			body["reason"] = h.Reason
		}
		if a.stopping() {
			body["reason"] = "shutting down"
		}
		code := http.StatusOK
		if !is(h) {
			code = http.StatusServiceUnavailable
		}
		a.reply(w, code, body)
	}
}

func (a *cacheAlone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := a.routes[r.URL.Path]
	if rt == nil && strings.HasPrefix(r.URL.Path, cacheBase) {
		rt = a.entry
	}
	class := "other"
	if rt != nil {
		class = rt.class
	}
	a.observed(class, w, r, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case (rt == nil || !rt.open) && !a.authorized(r):
			a.refuse(w, r)
		case rt == nil:
			a.fail(w, r, Errorf(http.StatusNotFound, "no handler for route %q: this node is a cache and nothing else", strings.TrimPrefix(r.URL.Path, "/v1/")))
		default:
			a.run(rt, w, r)
		}
	})
}

func (a *cacheAlone) authorized(r *http.Request) bool {
	shown := sha256.Sum256([]byte(TokenOf(r))) // hashed, so that the comparison tells nothing of the length either
	return !a.none && subtle.ConstantTimeCompare(shown[:], a.token[:]) == 1
}

func (a *cacheAlone) refuse(w http.ResponseWriter, r *http.Request) {
	if a.none {
		a.fail(w, r, Errorf(http.StatusForbidden, "entries cannot be reached by HTTP: CACHE_API_TOKEN was not set when this node started"))
		return
	}
	a.deny(w, r, ErrDenied)
}
