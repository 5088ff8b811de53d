package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/locum-ha/locum/cache"
)

// DefaultMaxBody is the size of the largest request body, in bytes, unless configured.
const DefaultMaxBody = 32 << 20

// Config is what both handlers can be given. The zero Config works.
type Config struct {
	// Logger gets what went wrong inside; default: nowhere.
	Logger *slog.Logger

	// MaxBody bounds a request's body in bytes; beyond it the answer is 413. Default DefaultMaxBody. Snapshots to
	// be restored are not bounded by it: they are streamed.
	MaxBody int64

	// Metrics serves /v1/sys/metrics; without it the path answers 404.
	Metrics http.Handler

	// OpenMetrics answers metrics without a token (unauthenticated_metrics_access).
	OpenMetrics bool

	// RateLimit bounds what clients may ask for without a token.
	RateLimit RateLimit

	// ClientAddr is the client's address, for RateLimit. Default: the other end of the connection.
	ClientAddr func(*http.Request) netip.Addr

	// RequestInfo says who a request is, so that what it writes can be recognised when it comes again (P6). Default:
	// the X-Request-Id header's value is not known here, so requests have no identity and are never repeated.
	RequestInfo func(context.Context) RequestInfo

	// Deposed is asked before an error is answered that a node gets which is not active any more: fenced,
	// unavailable, outcome unknown. If it returns true it has taken the request over, and the api writes nothing.
	Deposed func(r *http.Request, err error) bool

	// Cache is this node's part of the cache; nil where there is none.
	Cache *cache.Node

	// Observer is told of every request.
	Observer Observer

	// Now is the wall clock, for what is shown to people. Default time.Now.
	Now func() time.Time
}

// RequestInfo is the identity of a request, given to it by the node at which it arrived.
type RequestInfo struct {
	ID     string // X-Request-Id: in both nodes' logs and in the answer
	Slot   string // where the answer to a write is kept for its repeat; "" if it cannot be repeated
	Key    string // different for every request that uses the slot; never chosen by a client
	Repeat bool   // it may have been carried out before
}

// Observer is told what the api did. Funcs may be nil.
type Observer struct {
	// Request: one request was answered. Class is one of a fixed few: "status", "init", "sys", "raft", "auth", "kv", "cache", "other".
	Request func(class, method string, code int, took time.Duration)
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxBody <= 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.RequestInfo == nil {
		c.RequestInfo = func(context.Context) RequestInfo { return RequestInfo{} }
	}
	if c.Deposed == nil {
		c.Deposed = func(*http.Request, error) bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
