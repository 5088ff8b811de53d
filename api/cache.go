package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/cache"
)

// cacheBase is where the paths of caches begin: cache/NAME/KEY. A key may have slashes.
const cacheBase = "/v1/cache/"

// ttlHeader tells what is left of an entry's time, in milliseconds; it is not there if the entry does not expire.
const ttlHeader = "X-Locum-TTL-Ms"

// caching answers for the cache that lives on this node.
type caching struct {
	responder
	node *cache.Node
}

func (a *active) cacheRoutes() {
	c := &caching{a.responder, a.cfg.Cache}
	if c.node == nil {
		missing := func(w http.ResponseWriter, r *http.Request) {
			a.fail(w, r, Errorf(http.StatusNotFound, "this node has no cache: write a cache block into its configuration"))
		}
		rt := &route{class: "cache", on: get(missing).with(both(missing)).with(methods{http.MethodDelete: missing, methodList: missing})}
		a.below, a.routes["/v1/cache"] = append(a.below, prefix{cacheBase, rt}), rt
		return
	}
	a.below = append(a.below, prefix{cacheBase, c.entries()})
	a.routes["/v1/cache"] = c.names()
}

// entries is the route of everything below cacheBase.
func (c *caching) entries() *route {
	return &route{class: "cache", exists: c.exists, on: get(c.keyed(c.read)).with(both(c.keyed(c.write))).with(methods{
		http.MethodDelete: c.remove, methodList: c.list,
	})}
}

func (c *caching) names() *route {
	list := func(w http.ResponseWriter, r *http.Request) {
		if c.node.Health().Status == cache.Bad {
			c.failed(w, r, cache.ErrNoQuorum) // it knows of none, which is not that there are none (P11)
			return
		}
		names := []string{}
		for name := range c.node.Stats().Caches {
			names = append(names, name)
		}
		c.secret(w, r, http.StatusOK, map[string]any{"keys": sorted(names)})
	}
	return &route{class: "cache", on: get(list).with(methods{methodList: list})}
}

// exists reports whether there is such an entry, for policies that tell "create" from "update".
func (c *caching) exists(ctx context.Context, path string) (bool, error) {
	name, key, _ := strings.Cut(strings.TrimPrefix(path, "cache/"), "/")
	_, err := c.node.Cache(name).Get(ctx, key, cache.OwnWrites)
	if errors.Is(err, cache.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// split takes the cache's name and the key out of the URL.
func (c *caching) split(r *http.Request) (name, key string) {
	name, key, _ = strings.Cut(r.URL.Path[len(cacheBase):], "/")
	return name, key
}

// keyed gives a handler the cache and the key, which must be there.
func (c *caching) keyed(h func(w http.ResponseWriter, r *http.Request, in *cache.Cache, key string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, key := c.split(r)
		if name == "" || key == "" {
			c.fail(w, r, Errorf(http.StatusBadRequest, "the path is %sNAME/KEY; for a list of the keys, ask with ?list=true", cacheBase))
			return
		}
		h(w, r, c.node.Cache(name), key)
	}
}

// flagIn reports whether a parameter is set: present without a value, or with one that is not "false" or "0".
func flagIn(r *http.Request, name string) bool {
	values, ok := r.URL.Query()[name]
	return ok && values[0] != "false" && values[0] != "0"
}

// freshness is ?consistent; without it a read is this node's, with everything that was written through it.
func freshness(r *http.Request) cache.Read {
	if flagIn(r, "consistent") {
		return cache.Consistent
	}
	return cache.OwnWrites
}

func (c *caching) read(w http.ResponseWriter, r *http.Request, in *cache.Cache, key string) {
	item, err := in.Get(r.Context(), key, freshness(r))
	if err != nil {
		c.failed(w, r, err)
		return
	}
	if wanted := r.Header.Get("If-None-Match"); wanted != "" && wanted == tag(item.Version) {
		w.Header().Set("ETag", wanted)
		header(w, http.StatusNotModified)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	c.entry(w, item)
}

// entry writes a value as it is.
func (c *caching) entry(w http.ResponseWriter, item cache.Item) {
	header(w, http.StatusOK)
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(item.Value)))
	h.Set("ETag", tag(item.Version))
	if item.TTL > 0 {
		h.Set(ttlHeader, strconv.FormatInt(max(item.TTL.Milliseconds(), 1), 10))
	}
	w.WriteHeader(http.StatusOK)
	w.Write(item.Value) // the client may be gone: there is nobody to tell
}

// tag is a version as an entity tag (RFC 9110 §8.8.3).
func tag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// condition reads If-Match and If-None-Match.
func condition(r *http.Request, op *cache.Op) error {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case match != "" && none != "":
		return Errorf(http.StatusBadRequest, "If-Match and If-None-Match exclude each other here: send one")
	case none == "*":
		op.If = cache.IfAbsent
	case none != "":
		return Errorf(http.StatusBadRequest, `If-None-Match of a write is "*": only if there is no such entry`)
	case match == "*":
		op.If = cache.IfPresent
	case match != "":
		version, err := strconv.ParseUint(strings.Trim(match, `"`), 10, 64)
		if err != nil || match != tag(version) || version == 0 {
			return Errorf(http.StatusBadRequest, `If-Match is one ETag as a read gave it, such as "17", or "*"`)
		}
		op.If, op.Version = cache.IfVersion, version
	}
	return nil
}

// levelIn is ?ack; quorum without it.
func levelIn(r *http.Request) (cache.Level, error) {
	text := r.URL.Query().Get("ack")
	if text == "" {
		return cache.Quorum, nil
	}
	level, err := cache.ParseLevel(text)
	if err != nil {
		return 0, Errorf(http.StatusBadRequest, "the parameter ack is quorum, once, leader or direct, not %s", shown(text))
	}
	return level, nil
}

// ttlIn is ?ttl, a duration or a number of seconds; "none" for an entry that does not expire. Without it the cache's default.
func ttlIn(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("ttl")
	switch text {
	case "":
		return cache.DefaultTTL, nil
	case "none":
		return cache.NoExpiry, nil
	case "keep":
		return cache.KeepTTL, nil
	}
	ttl, err := time.ParseDuration(text)
	if n, notNumber := strconv.ParseUint(text, 10, 32); notNumber == nil {
		ttl, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || ttl < time.Millisecond {
		return 0, Errorf(http.StatusBadRequest, `the parameter ttl is a time from 1ms on, such as "30s", or "none" or "keep", not %s`, shown(text))
	}
	return ttl, nil
}

func (c *caching) write(w http.ResponseWriter, r *http.Request, in *cache.Cache, key string) {
	op := cache.Op{Kind: cache.OpPut, Key: key}
	level, err := levelIn(r)
	if err == nil {
		op.TTL, err = ttlIn(r)
	}
	if err == nil {
		err = condition(r, &op)
	}
	if err == nil {
		op.Value, err = c.readBody(w, r)
	}
	if err == nil {
		err = c.number(r, &op)
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	result, err := in.Do(r.Context(), level, op)
	switch {
	case err != nil, result.Err != nil:
		c.failed(w, r, errors.Join(err, result.Err))
	case op.If != cache.Always && !result.Done:
		c.notMet(w, r, op, result)
	case op.Kind == cache.OpIncrement:
		w.Header().Set("ETag", tag(result.Version))
		c.secret(w, r, http.StatusOK, map[string]any{"value": result.Number, "version": result.Version})
	default:
		if result.Version != 0 {
			w.Header().Set("ETag", tag(result.Version))
		}
		empty(w)
	}
}

// number makes a counter's operation of a write with ?increment=n.
func (c *caching) number(r *http.Request, op *cache.Op) error {
	values, ok := r.URL.Query()["increment"]
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	switch {
	case err != nil:
		return Errorf(http.StatusBadRequest, "the parameter increment is a whole number of 64 bits, not %s", shown(values[0]))
	case op.If != cache.Always || len(op.Value) > 0:
		return Errorf(http.StatusBadRequest, "with increment there is neither a body nor a condition")
	}
	op.Kind, op.Delta = cache.OpIncrement, n
	return nil
}

// notMet is the answer where the condition did not hold (RFC 9110 §13.1).
func (c *caching) notMet(w http.ResponseWriter, r *http.Request, op cache.Op, result cache.Result) {
	if result.Found {
		w.Header().Set("ETag", tag(result.Version))
	}
	what := "there is no such entry"
	if result.Found {
		what = "the entry has another version, which the ETag tells"
	}
	if op.If == cache.IfAbsent {
		what = "there is such an entry already, whose version the ETag tells"
	}
	c.fail(w, r, &Error{Status: http.StatusPreconditionFailed, Message: "the condition is not met, and nothing was done: " + what, Processed: ProcessedNo})
}

// remove deletes an entry; with ?take it answers what it was, so that of all who take it one gets it. Without a key it empties the
// cache.
func (c *caching) remove(w http.ResponseWriter, r *http.Request) {
	name, key := c.split(r)
	take := flagIn(r, "take")
	op := cache.Op{Kind: cache.OpDelete, Key: key, WantOld: take}
	level, err := levelIn(r)
	if err == nil {
		err = condition(r, &op)
	}
	switch {
	case err != nil:
	case name == "" || key == "" && (take || op.If != cache.Always || strings.HasSuffix(r.URL.Path, "/")): // the latter has lost its key
		err = Errorf(http.StatusBadRequest, "the path is %sNAME/KEY, or %sNAME to empty a cache", cacheBase, cacheBase)
	case key == "":
		op = cache.Op{Kind: cache.OpClear}
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	result, err := c.node.Cache(name).Do(r.Context(), level, op)
	switch {
	case err != nil, result.Err != nil:
		c.failed(w, r, errors.Join(err, result.Err))
	case op.If != cache.Always && !result.Done:
		c.notMet(w, r, op, result)
	case take && !result.Found:
		c.failed(w, r, cache.ErrNotFound)
	case take:
		c.entry(w, cache.Item{Value: result.Value, Version: result.Version, TTL: result.TTL})
	default:
		empty(w)
	}
}

// list answers the keys of a cache that begin with what stands behind its name, sorted, after ?after, ?limit of them (1000).
func (c *caching) list(w http.ResponseWriter, r *http.Request) {
	name, prefix := c.split(r)
	limit, err := numberIn(r, "limit")
	if err == nil && name == "" {
		err = Errorf(http.StatusBadRequest, "the path is %sNAME or %sNAME/PREFIX", cacheBase, cacheBase)
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	keys, err := c.node.Cache(name).List(r.Context(), prefix, r.URL.Query().Get("after"), int(limit), freshness(r))
	if err != nil {
		c.failed(w, r, err)
		return
	}
	if keys == nil {
		keys = []string{}
	}
	c.secret(w, r, http.StatusOK, map[string]any{"keys": keys})
}

// failed answers with an error of the cache.
func (c *caching) failed(w http.ResponseWriter, r *http.Request, err error) {
	c.fail(w, r, cacheAnswer(err))
}

// cacheAnswer finds the answer to an error of the cache: what was not done, and what nobody knows.
func cacheAnswer(err error) error {
	const again = ": send the request again"
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return &Error{Status: http.StatusNotFound, Message: cache.ErrNotFound.Error()}
	case errors.Is(err, cache.ErrUnknown):
		return &Error{http.StatusServiceUnavailable, "the outcome of the write is unknown: it may have been carried out; read before you repeat it", ProcessedUnknown}
	case errors.Is(err, cache.ErrNoQuorum):
		return &Error{http.StatusServiceUnavailable, "the cache has no quorum, and nothing was read or done" + again, ProcessedNo}
	case errors.Is(err, cache.ErrBusy):
		return &Error{http.StatusServiceUnavailable, "too many writes are waiting, and this one was not done" + again, ProcessedNo}
	case errors.Is(err, cache.ErrTooLarge):
		return Errorf(http.StatusRequestEntityTooLarge, "%v: store less under one key", err)
	case errors.Is(err, cache.ErrNotNumber), errors.Is(err, cache.ErrOverflow), errors.Is(err, cache.ErrInvalid):
		return Errorf(http.StatusBadRequest, "%v", err)
	case errors.Is(err, cache.ErrNotDone), errors.Is(err, cache.ErrClosed):
		return &Error{http.StatusServiceUnavailable, "the cache cannot do this now, and nothing was done" + again, ProcessedNo}
	}
	return err
}
