package forward

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// lapMark is the query parameter by which a redirect is recognised that came round again: it is added
// only where a loop is possible, and taken off before anybody else sees the request.
const lapMark = "_locum_lap=1"

// mayRedirect reports whether a redirect makes sense now. Where this node's address is the active
// node's too, only while that is known to be up: the client may come back here.
func (x *exchange) mayRedirect(p *place) bool {
	if p.target == nil {
		return false
	}
	if x.sameAddr(p.target) {
		return p.session != nil
	}
	return true
}

// redirect answers 307 with the active node's address, or 503 to a client that was sent round already.
func (x *exchange) redirect(t *Target) {
	same := x.sameAddr(t)
	if t.APIAddr == "" || same && x.lapped {
		x.answerFailure(errLoop)
		return
	}
	x.w.Header()["Location"] = []string{location(t.APIAddr, x.req, same)}
	x.w.Header()["Content-Length"] = []string{"0"}
	x.r.cfg.Observer.Redirected()
	x.w.WriteHeader(http.StatusTemporaryRedirect)
}

// location is api_addr and its path, then the request's path and query as the client sent them.
func location(apiAddr string, r *http.Request, mark bool) string {
	uri := rawURI(r)
	if mark {
		sep := "?"
		if strings.Contains(uri, "?") {
			sep = "&"
		}
		uri += sep + lapMark
	}
	return strings.TrimRight(apiAddr, "/") + uri
}

// rawURI is path and query, untouched; of a request in absolute form, without what stands before them.
func rawURI(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// unmark takes the mark off and reports whether it was there.
func unmark(r *http.Request) bool {
	q := r.URL.RawQuery
	if !strings.HasSuffix(q, lapMark) || len(q) > len(lapMark) && q[len(q)-len(lapMark)-1] != '&' {
		return false
	}
	u := *r.URL
	u.RawQuery = strings.TrimSuffix(strings.TrimSuffix(q, lapMark), "&")
	r.URL = &u
	if uri, ok := strings.CutSuffix(r.RequestURI, lapMark); ok {
		r.RequestURI = uri[:len(uri)-1] // and the ? or & before it
	}
	return true
}

func (x *exchange) sameAddr(t *Target) bool { return sameAddr(x.r.cfg.APIAddr, t.APIAddr) }

// sameAddr compares what clients connect to: a path does not tell two nodes apart for a load balancer,
// but it does for a client, so it counts.
func sameAddr(a, b string) bool {
	if a == b {
		return a != ""
	}
	u, err1 := url.Parse(a)
	v, err2 := url.Parse(b)
	if err1 != nil || err2 != nil || u.Host == "" {
		return false
	}
	return strings.EqualFold(u.Scheme, v.Scheme) && hostPort(u) == hostPort(v) &&
		strings.TrimRight(u.Path, "/") == strings.TrimRight(v.Path, "/")
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if strings.EqualFold(u.Scheme, "https") {
			port = "443"
		}
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
