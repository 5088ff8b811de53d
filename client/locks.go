package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Lock is a named lock as the cluster keeps it.
type Lock struct {
	Name   string `json:"name"`
	Held   bool   `json:"held"`
	Holder string `json:"holder"`
	Number uint64 `json:"number"` // rises with every change of hands
	TTL    string `json:"ttl"`
	Left   string `json:"left,omitempty"`
	Since  string `json:"since,omitempty"`
}

// LockRequest is what is asked of a lock. The secret, random and 16 to 256 bytes long, shows later that it is the same caller.
type LockRequest struct {
	Name   string
	Holder string
	Secret Secret
	TTL    time.Duration
	Wait   time.Duration
}

func lockPath(name string) string { return "/locks/" + strings.Trim(name, "/") }

// AcquireLock takes the lock. Held by another it is an *Error with status 409. After ErrUnknown the same request may be made again.
func (c *Client) AcquireLock(ctx context.Context, r LockRequest) (Lock, error) {
	in := map[string]string{"secret": string(r.Secret), "holder": r.Holder, "ttl": r.TTL.String(), "wait": r.Wait.String()}
	return c.takeLock(ctx, r, in, r.Wait)
}

// RenewLock extends the lock by its TTL, from the instant before the call. A lock that was lost is an *Error with status 409.
func (c *Client) RenewLock(ctx context.Context, r LockRequest) (Lock, error) {
	return c.takeLock(ctx, r, map[string]any{"secret": string(r.Secret), "renew": true}, 0)
}

func (c *Client) takeLock(ctx context.Context, r LockRequest, in any, longer time.Duration) (Lock, error) {
	var out Lock
	_, err := c.do(ctx, call{method: http.MethodPut, path: lockPath(r.Name), in: in, out: &out, longer: longer})
	return out, err
}

// ReleaseLock gives the lock up. It does nothing if the caller does not hold it.
func (c *Client) ReleaseLock(ctx context.Context, r LockRequest) error {
	_, err := c.Do(ctx, http.MethodPut, lockPath(r.Name), map[string]any{"secret": string(r.Secret), "release": true}, nil)
	return err
}

// BreakLock takes the lock from whoever holds it.
func (c *Client) BreakLock(ctx context.Context, name string) error {
	_, err := c.Do(ctx, http.MethodDelete, lockPath(name), nil, nil)
	return err
}

// Lock tells who holds a lock. One that nobody has held lately is ErrNotFound.
func (c *Client) Lock(ctx context.Context, name string) (Lock, error) {
	var out Lock
	_, err := c.Do(ctx, http.MethodGet, lockPath(name), nil, &out)
	return out, err
}

// Locks lists the names of locks above after, that are or lately were held.
func (c *Client) Locks(ctx context.Context, after string) ([]string, error) {
	var out struct {
		Keys []string `json:"keys"`
	}
	_, err := c.do(ctx, call{method: "LIST", path: "/locks", query: url.Values{"after": {after}}, out: &out})
	return out.Keys, err
}
