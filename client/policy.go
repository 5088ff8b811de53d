package client

import (
	"context"
	"net/http"
)

// Policies is the part of the API that is about policies.
type Policies struct{ c *Client }

// Policies returns it.
func (c *Client) Policies() Policies { return Policies{c} }

// The name of a policy stands in a path as it is: the server knows which names there can be.
func policyPath(name string) string { return "/sys/policies/acl/" + name }

// Read returns a policy's text.
func (p Policies) Read(ctx context.Context, name string) (string, error) {
	var out struct {
		Data struct {
			Policy string `json:"policy"`
		} `json:"data"`
	}
	_, err := p.c.Do(ctx, http.MethodGet, policyPath(name), nil, &out)
	return out.Data.Policy, err
}

// Write makes or replaces a policy. Its text is HCL or JSON.
func (p Policies) Write(ctx context.Context, name, text string) error {
	_, err := p.c.Do(ctx, http.MethodPut, policyPath(name), map[string]string{"policy": text}, nil)
	return err
}

// Delete removes a policy. Tokens that have it can do no more what it allowed.
func (p Policies) Delete(ctx context.Context, name string) error {
	_, err := p.c.Do(ctx, http.MethodDelete, policyPath(name), nil, nil)
	return err
}

// List returns the names of all policies.
func (p Policies) List(ctx context.Context) ([]string, error) {
	var out struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	_, err := p.c.do(ctx, call{method: http.MethodGet, path: "/sys/policies/acl", query: queryOf("list", "true"), out: &out})
	return out.Data.Keys, err
}
