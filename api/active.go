package api

import (
	"context"
	"net/http"
	"strings"
)

// active answers what reads or changes the cluster's state.
type active struct {
	responder
	service Service
	kv      KV
	tokens  Tokens
	raft    Raft
	routes  map[string]*route
	below   []prefix
	none    *route // of a path that there is not
}

// prefix is a route for all paths below one.
type prefix struct {
	path string // ends in "/"
	*route
}

// Active is what the active node runs. A raft that is nil says that storage is another: its paths then answer 404 with
// that explanation.
func Active(service Service, entries KV, tokens Tokens, raft Raft, cfg Config) http.Handler {
	a := &active{responder: responder{cfg.withDefaults()}, service: service, kv: entries, tokens: tokens, raft: raft, none: &route{class: "other"}}
	a.routes = map[string]*route{}
	a.kvRoutes() // first: entries are what is asked for most
	a.sysRoutes()
	a.raftRoutes()
	a.mountRoutes()
	a.tokenRoutes()
	a.policyRoutes()
	a.generateRootRoutes()
	a.rekeyRoutes()
	a.cacheRoutes()
	a.lockRoutes()
	return a
}

// find returns the route of a path; a.none if there is none.
func (a *active) find(path string) *route {
	for i := range a.below {
		if strings.HasPrefix(path, a.below[i].path) {
			if len(path) == len(a.below[i].path) && a.routes[path] != nil {
				break
			}
			return a.below[i].route
		}
	}
	if rt := a.routes[path]; rt != nil {
		return rt
	}
	return a.none
}

func (a *active) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt := a.find(r.URL.Path)
	a.observed(rt.class, w, r, func(w http.ResponseWriter, r *http.Request) {
		if !rt.open {
			bearer, err := a.service.Authorize(r.Context(), TokenOf(r), accessOf(rt, r))
			if err != nil {
				a.deny(w, r, err)
				return
			}
			if rt.self {
				r = withBearer(r, bearer)
			}
		}
		if err := unsupported(r); err != nil {
			a.fail(w, r, err)
			return
		}
		if rt == a.none {
			a.unknown(w, r)
			return
		}
		a.run(rt, w, r)
	})
}

// accessOf is what a request's token must be allowed.
func accessOf(rt *route, r *http.Request) Access {
	need := Access{Path: strings.TrimPrefix(r.URL.Path, "/v1/"), Op: opOf(methodOf(r)), Sudo: rt.sudo, Any: rt.any}
	if rt.exists != nil && need.Op == Update {
		path := need.Path
		need.Exists = func(ctx context.Context) (bool, error) { return rt.exists(ctx, path) }
	}
	if rt.answered != nil && (need.Op == Update || need.Op == Patch) {
		need.Answered = func(context.Context) (bool, error) { return rt.answered(r) }
	}
	return need
}

// unknown is answered only to who has a token: others learn nothing about what there is.
func (a *active) unknown(w http.ResponseWriter, r *http.Request) {
	a.fail(w, r, Errorf(http.StatusNotFound, "no handler for route %q: see the list of paths in the documentation of the HTTP API", strings.TrimPrefix(r.URL.Path, "/v1/")))
}

func opOf(method string) Op {
	switch method {
	case http.MethodGet, http.MethodHead:
		return Read
	case methodList:
		return List
	case http.MethodDelete:
		return Delete
	case http.MethodPatch:
		return Patch
	default:
		return Update
	}
}
