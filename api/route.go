package api

import (
	"context"
	"net/http"
	"sort"
	"strings"
)

// methods maps a method to what answers it.
type methods map[string]http.HandlerFunc

// route is one path, or all paths below one.
type route struct {
	class string // for the observer
	open  bool   // needs no token
	sudo  bool   // needs the power of root
	any   bool   // any token will do: it shows nothing that is secret
	self  bool   // its handlers want the bearer's token
	// exists tells a POST that makes something from one that changes it; nil: all POSTs are changes.
	exists func(ctx context.Context, path string) (bool, error)
	// answered tells that a write was carried out before, where not its slot alone tells that; nil: it does.
	answered func(*http.Request) (bool, error)
	on       methods
}

// both answers POST and PUT alike, as Vault does.
func both(h http.HandlerFunc) methods {
	return methods{http.MethodPost: h, http.MethodPut: h}
}

// get answers GET, and HEAD with the same header.
func get(h http.HandlerFunc) methods {
	return methods{http.MethodGet: h, http.MethodHead: h}
}

// with adds other's methods.
func (m methods) with(other methods) methods {
	for name, h := range other {
		m[name] = h
	}
	return m
}

// allow is the value of the Allow header.
func (m methods) allow() string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// methodList is Vault's own method.
const methodList = "LIST"

// methodOf is the request's method; GET with list=true is LIST, for clients that cannot send the latter.
func methodOf(r *http.Request) string {
	if r.Method == http.MethodGet && r.URL.RawQuery != "" {
		if v := r.URL.Query()["list"]; len(v) > 0 && (v[0] == "true" || v[0] == "1") {
			return methodList
		}
	}
	return r.Method
}

// run answers with the handler for the request's method, or 405.
func (rs responder) run(rt *route, w http.ResponseWriter, r *http.Request) {
	method := methodOf(r)
	if h, ok := rt.on[method]; ok {
		h(w, r)
		return
	}
	w.Header().Set("Allow", rt.on.allow())
	rs.fail(w, r, Errorf(http.StatusMethodNotAllowed, "method %s is not allowed here: use one of %s", method, rt.on.allow()))
}
