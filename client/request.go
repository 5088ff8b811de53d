package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// maxRedirects is more than a cluster needs: one, or two while leadership changes.
const maxRedirects = 4

// maxAnswer bounds an answer that is read as a whole.
const maxAnswer = 64 << 20

// Meta is what the headers of an answer tell about its way.
type Meta struct {
	Status      int
	Node        string // X-Locum-Node: which node carried the request out
	Term        uint64 // X-Locum-Term: in which term
	ForwardedBy string // X-Locum-Forwarded-By: the standby that passed it on
	RequestID   string // X-Request-Id
}

// call is one request to be made.
type call struct {
	method string
	path   string // below the address, without "/v1": "/sys/health"
	query  url.Values
	in     any           // sent as JSON, unless nil
	kind   string        // the media type of in; default application/json
	raw    []byte        // sent as it is instead, with kind
	body   io.Reader     // sent as it is instead; cannot be repeated
	header http.Header   // sent beside the client's own
	seen   *http.Header  // gets the header of a 2xx, unless nil
	out    any           // decoded from JSON, unless nil
	sink   io.Writer     // gets the body of a 2xx as it is instead
	once   bool          // never repeated, for what should show the node as it is
	longer time.Duration // added to the limit of an attempt
	accept func(status int) bool
}

// Do sends in as JSON to a path below /v1 and decodes the answer into out; both may be nil.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) (Meta, error) {
	return c.do(ctx, call{method: method, path: path, in: in, out: out})
}

func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "LIST":
		return true
	}
	return false
}

// do makes a call, as often as it may be made.
func (c *Client) do(ctx context.Context, cl call) (Meta, error) {
	payload := cl.raw
	if cl.in != nil {
		var err error
		if payload, err = json.Marshal(cl.in); err != nil {
			return Meta{}, fmt.Errorf("writing the request: %w", err)
		}
	}
	for attempt := 1; ; attempt++ {
		meta, wrote, err := c.attempt(ctx, cl, payload)
		if err == nil || ctx.Err() != nil || attempt >= c.cfg.Attempts || !repeatable(cl, wrote, err) {
			return meta, err
		}
		if !c.pause(ctx, attempt, err) {
			return meta, err
		}
	}
}

// repeatable decides by what is certain: see the package's DESIGN. wrote says that some of the request went out.
func repeatable(cl call, wrote bool, err error) bool {
	if cl.once || cl.body != nil || cl.sink != nil && wrote {
		return false
	}
	var answer *Error
	if errors.As(err, &answer) {
		switch answer.Status {
		case http.StatusServiceUnavailable:
			return answer.Processed == "no" || safe(cl.method)
		case http.StatusBadGateway, http.StatusGatewayTimeout:
			return safe(cl.method)
		}
		return false
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return false // it will not get better
	}
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknown) && safe(cl.method)
}

// pause waits as long as the answer asks, or backs off. It reports whether to go on.
func (c *Client) pause(ctx context.Context, attempt int, err error) bool {
	wait := time.Duration(float64(200*time.Millisecond<<(attempt-1)) * (0.5 + rand.Float64()))
	var answer *Error
	if errors.As(err, &answer) && answer.RetryAfter > 0 {
		wait = answer.RetryAfter
	}
	if wait > c.cfg.MaxWait {
		return false
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// retryAfter reads seconds or a date (RFC 9110 §10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// attempt sends the request once, over redirects.
func (c *Client) attempt(ctx context.Context, cl call, payload []byte) (Meta, bool, error) {
	if cl.sink == nil && cl.body == nil {
		var cancel context.CancelFunc
		limit := c.cfg.Timeout + cl.longer
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
		defer cancel()
	}
	// Joined as text: nothing may be cleaned away from a path that names an entry.
	target := &url.URL{Scheme: c.base.Scheme, Host: c.base.Host, Path: c.base.Path + "/v1" + cl.path, RawQuery: cl.query.Encode()}
	for redirects := 0; ; redirects++ {
		resp, wrote, err := c.send(ctx, cl, target, payload)
		if err != nil {
			return Meta{}, wrote, err
		}
		next, err := follow(resp, redirects)
		if next == nil && err == nil {
			meta, err := receive(resp, cl)
			return meta, wrote, err
		}
		_ = resp.Body.Close()
		if err == nil && cl.body != nil {
			err = fmt.Errorf("%w: %s is not the active node, and what was being sent cannot be sent again; ask %s", ErrRedirect, c.name(target), next)
		}
		if err != nil {
			return metaOf(resp), wrote, err
		}
		target = next
	}
}

// follow returns where a redirect leads; nil if the answer is none.
func follow(resp *http.Response, redirects int) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		return nil, fmt.Errorf("%w: HTTP %d does not keep the method; is the address a node's?", ErrRedirect, resp.StatusCode)
	default:
		return nil, nil
	}
	next, err := resp.Location()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: no valid Location", ErrRedirect)
	case redirects >= maxRedirects:
		return nil, fmt.Errorf("%w: %d in a row; no node seems to be active", ErrRedirect, redirects+1)
	case next.Scheme != "https" && (next.Scheme != "http" || resp.Request.URL.Scheme == "https"):
		return nil, fmt.Errorf("%w: from %s to %s, where the token could be read on the way; check api_addr of the active node", ErrRedirect, resp.Request.URL.Scheme, next.Scheme)
	case next.User != nil:
		return nil, fmt.Errorf("%w: its target has a user name", ErrRedirect)
	}
	return next, nil
}

// send makes one HTTP exchange. wrote says that some of the request went out, so that it may have been carried out.
func (c *Client) send(ctx context.Context, cl call, target *url.URL, payload []byte) (resp *http.Response, wrote bool, err error) {
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) { sent.Store(true) },
	})
	body := cl.body
	if payload != nil {
		body = bytes.NewReader(payload)
	}
	req, err := http.NewRequestWithContext(traced, cl.method, target.String(), body)
	if err != nil {
		return nil, false, fmt.Errorf("making the request: %w", err)
	}
	maps.Copy(req.Header, cl.header)
	if payload != nil {
		req.Header.Set("Content-Type", cmp.Or(cl.kind, "application/json"))
	}
	if c.cfg.Token != "" {
		req.Header.Set("X-Vault-Token", string(c.cfg.Token))
	}
	if c.cfg.NoForward {
		req.Header.Set("X-Locum-No-Request-Forwarding", "true")
	}
	resp, err = c.http.Do(req)
	if err == nil {
		return resp, true, nil
	}
	// The cause is without the *url.Error around it, whose text repeats what stands here.
	cause := err
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		cause = wrapped.Err
	}
	if why := context.Cause(ctx); why != nil && ctx.Err() != nil {
		cause = why
	}
	switch {
	case !sent.Load():
		return nil, false, fmt.Errorf("%w to %s: %w", ErrUnreachable, c.name(target), cause)
	case safe(cl.method):
		return nil, true, fmt.Errorf("%w: %s %s to %s broke off: %w", ErrUnknown, cl.method, target.Path, c.name(target), cause)
	default:
		return nil, true, fmt.Errorf("%w: %s %s to %s broke off, and may have been carried out: %w", ErrUnknown, cl.method, target.Path, c.name(target), cause)
	}
}

func metaOf(resp *http.Response) Meta {
	term, _ := strconv.ParseUint(resp.Header.Get("X-Locum-Term"), 10, 64)
	return Meta{
		Status:      resp.StatusCode,
		Node:        resp.Header.Get("X-Locum-Node"),
		Term:        term,
		ForwardedBy: resp.Header.Get("X-Locum-Forwarded-By"),
		RequestID:   resp.Header.Get("X-Request-Id"),
	}
}

// receive reads the answer.
func receive(resp *http.Response, cl call) (Meta, error) {
	defer resp.Body.Close()
	meta := metaOf(resp)
	ok := resp.StatusCode/100 == 2 || cl.accept != nil && cl.accept(resp.StatusCode)
	if !ok {
		// What cannot be read of an error answer is not worth another error.
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return meta, errorFrom(resp, body)
	}
	if cl.seen != nil {
		*cl.seen = resp.Header
	}
	if cl.sink != nil {
		if _, err := io.Copy(cl.sink, resp.Body); err != nil {
			return meta, fmt.Errorf("the answer to %s %s broke off: %w", cl.method, cl.path, err)
		}
		return meta, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return meta, fmt.Errorf("%w: the answer to %s %s broke off: %w", ErrUnknown, cl.method, cl.path, err)
	}
	if len(body) > maxAnswer {
		return meta, fmt.Errorf("the answer to %s %s is longer than %d bytes", cl.method, cl.path, maxAnswer)
	}
	if cl.out == nil || len(bytes.TrimSpace(body)) == 0 {
		return meta, nil
	}
	if err := json.Unmarshal(body, cl.out); err != nil {
		return meta, fmt.Errorf("the answer to %s %s is not what it should be; is %s a Locum node? %w", cl.method, cl.path, resp.Request.URL.Host, err)
	}
	return meta, nil
}
