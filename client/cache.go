package client

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Cache is one named cache of the cluster's.
type Cache struct {
	c    *Client
	name string
}

// Cache returns the one of this name.
func (c *Client) Cache(name string) Cache { return Cache{c, name} }

// CacheItem is an entry of a cache.
type CacheItem struct {
	Value   []byte
	Version string        // as If-Match takes it
	TTL     time.Duration // what is left of it; 0 if it does not expire
}

// CachePut says how an entry is written.
type CachePut struct {
	TTL      string // "30s", "none", "keep"; "" for the cache's default
	Ack      string // "quorum", "once", "leader", "direct"; "" for quorum
	IfAbsent bool   // only if there is no such entry
	IfMatch  string // only if it has this version; "*": only if there is one
}

func (k Cache) path(key string) string { return "/cache/" + k.name + "/" + key }

func itemOf(value []byte, header http.Header) CacheItem {
	ms, err := strconv.ParseInt(header.Get("X-Locum-TTL-Ms"), 10, 64)
	if err != nil {
		ms = 0 // it does not expire
	}
	return CacheItem{Value: value, Version: header.Get("ETag"), TTL: time.Duration(ms) * time.Millisecond}
}

// Get reads an entry: an *Error with 404 if there is none. A consistent read is linearizable.
func (k Cache) Get(ctx context.Context, key string, consistent bool) (CacheItem, Meta, error) {
	query := url.Values{}
	if consistent {
		query.Set("consistent", "true")
	}
	return k.entry(ctx, call{method: http.MethodGet, path: k.path(key), query: query})
}

// Take removes an entry and returns it: of all who take it, one gets it.
func (k Cache) Take(ctx context.Context, key string) (CacheItem, Meta, error) {
	return k.entry(ctx, call{method: http.MethodDelete, path: k.path(key), query: url.Values{"take": {"true"}}})
}

func (k Cache) entry(ctx context.Context, cl call) (CacheItem, Meta, error) {
	var value bytes.Buffer
	var header http.Header
	cl.sink, cl.seen = &value, &header
	ctx, cancel := context.WithTimeoutCause(ctx, k.c.cfg.Timeout, fmt.Errorf("no answer within %s", k.c.cfg.Timeout))
	defer cancel() // what goes into a sink has no other limit
	meta, err := k.c.do(ctx, cl)
	return itemOf(value.Bytes(), header), meta, err
}

// Put writes an entry and returns its version, which is "" at levels below quorum. A condition that does not hold is an *Error with 412.
func (k Cache) Put(ctx context.Context, key string, value []byte, o CachePut) (version string, meta Meta, err error) {
	query, header := url.Values{}, http.Header{}
	if o.TTL != "" {
		query.Set("ttl", o.TTL)
	}
	if o.Ack != "" {
		query.Set("ack", o.Ack)
	}
	if o.IfAbsent {
		header.Set("If-None-Match", "*")
	}
	if o.IfMatch != "" {
		header.Set("If-Match", o.IfMatch)
	}
	if value == nil {
		value = []byte{}
	}
	var seen http.Header
	meta, err = k.c.do(ctx, call{
		method: http.MethodPut, path: k.path(key), query: query, raw: value, kind: "application/octet-stream", header: header, seen: &seen,
	})
	return seen.Get("ETag"), meta, err
}

// Delete removes an entry; it says nothing about one that is not there.
func (k Cache) Delete(ctx context.Context, key string) (Meta, error) {
	return k.c.do(ctx, call{method: http.MethodDelete, path: k.path(key)})
}

// List returns up to limit keys that begin with prefix, sorted, after this one. 0 is 1000.
func (k Cache) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	query := url.Values{"list": {"true"}, "limit": {strconv.Itoa(limit)}, "after": {after}}
	var out struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	_, err := k.c.do(ctx, call{method: http.MethodGet, path: k.path(prefix), query: query, out: &out})
	return out.Data.Keys, err
}

// CacheStatus is what a node knows of the cache.
type CacheStatus struct {
	Status    string   `json:"status"` // good, degraded, bad
	State     string   `json:"state"`
	IsLeader  bool     `json:"is_leader"`
	Leader    string   `json:"leader"`
	Term      uint64   `json:"term"`
	Hosts     []string `json:"hosts"`
	Connected []string `json:"connected"`
	Quorum    int      `json:"quorum"`
	Reason    string   `json:"reason,omitempty"`
	Caches    map[string]struct {
		Entries    int64  `json:"entries"`
		Bytes      int64  `json:"bytes"`
		MaxEntries int64  `json:"max_entries"`
		MaxBytes   int64  `json:"max_bytes"`
		Evictions  uint64 `json:"evictions"`
		Expired    uint64 `json:"expired"`
	} `json:"caches"`
	Hits   uint64 `json:"hits"`
	Misses uint64 `json:"misses"`
	Writes map[string]struct {
		Done    uint64 `json:"done"`
		Failed  uint64 `json:"failed"`
		Unknown uint64 `json:"unknown"`
		MeanUS  int64  `json:"mean_us"`
	} `json:"writes"`
	Elections      uint64 `json:"elections"`
	Emptied        uint64 `json:"emptied"`
	TransfersIn    uint64 `json:"transfers_in"`
	TransfersOut   uint64 `json:"transfers_out"`
	LastTransferMS int64  `json:"last_transfer_ms"`
	Applied        uint64 `json:"applied"`
}

// CacheStatus asks a node for its own part of the cache. A node whose cache refuses answers too.
func (c *Client) CacheStatus(ctx context.Context) (CacheStatus, error) {
	var out CacheStatus
	_, err := c.do(ctx, call{
		method: http.MethodGet, path: "/sys/cache", out: &out, once: true,
		accept: func(status int) bool { return status == http.StatusServiceUnavailable },
	})
	return out, err
}
