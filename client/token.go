package client

import (
	"context"
	"net/http"
	"time"
)

// TokenRequest says what a new token should be. The zero value is a child of the bearer's token with its policies.
type TokenRequest struct {
	Policies        []string          `json:"policies,omitempty"`
	Meta            map[string]string `json:"meta,omitempty"`
	DisplayName     string            `json:"display_name,omitempty"`
	TTL             string            `json:"ttl,omitempty"`              // as "1h"
	ExplicitMaxTTL  string            `json:"explicit_max_ttl,omitempty"` // never longer, however often it is renewed
	Period          string            `json:"period,omitempty"`           // renewable for ever, each time for so long
	NumUses         int               `json:"num_uses,omitempty"`         // 0: as many as wanted
	Renewable       *bool             `json:"renewable,omitempty"`
	NoDefaultPolicy bool              `json:"no_default_policy,omitempty"`

	// Orphan makes a token that does not end with its parent's.
	Orphan bool `json:"-"`
}

// TokenAuth is a token as it is given out: made, or renewed.
type TokenAuth struct {
	ClientToken   Secret            `json:"client_token"` // "" where only the accessor was known
	Accessor      string            `json:"accessor"`
	Policies      []string          `json:"policies"`
	TokenPolicies []string          `json:"token_policies"`
	Metadata      map[string]string `json:"metadata"`
	LeaseDuration int64             `json:"lease_duration"` // seconds; 0: it does not end
	Renewable     bool              `json:"renewable"`
	TokenType     string            `json:"token_type"`
	Orphan        bool              `json:"orphan"`
	NumUses       int               `json:"num_uses"`

	Warnings []string `json:"-"`
}

// TokenInfo is what a lookup tells of a token.
type TokenInfo struct {
	Accessor       string            `json:"accessor"`
	CreationTime   int64             `json:"creation_time"` // seconds since 1970
	CreationTTL    int64             `json:"creation_ttl"`  // seconds
	DisplayName    string            `json:"display_name"`
	ExpireTime     *time.Time        `json:"expire_time"` // nil: it does not end
	ExplicitMaxTTL int64             `json:"explicit_max_ttl"`
	ID             Secret            `json:"id"` // the token; "" where only the accessor was known
	IssueTime      *time.Time        `json:"issue_time,omitempty"`
	LastRenewal    *time.Time        `json:"last_renewal,omitempty"`
	Meta           map[string]string `json:"meta"`
	NumUses        int               `json:"num_uses"`
	Orphan         bool              `json:"orphan"`
	Path           string            `json:"path"`
	Period         int64             `json:"period,omitempty"`
	Policies       []string          `json:"policies"`
	Renewable      bool              `json:"renewable"`
	TTL            int64             `json:"ttl"` // seconds left; 0: it does not end
	Type           string            `json:"type"`
}

// TokenID names a token: by itself, by its accessor, or, as the zero value, the one that the client sends.
type TokenID struct {
	Token    Secret
	Accessor string
}

// at returns the path for this way of naming, and the body that names it.
func (id TokenID) at(action string) (path string, body map[string]any) {
	switch {
	case id.Accessor != "":
		return "/auth/token/" + action + "-accessor", map[string]any{"accessor": id.Accessor}
	case id.Token != "":
		return "/auth/token/" + action, map[string]any{"token": string(id.Token)}
	}
	return "/auth/token/" + action + "-self", map[string]any{}
}

// Tokens is the part of the API that is about tokens.
type Tokens struct{ c *Client }

// Tokens returns it.
func (c *Client) Tokens() Tokens { return Tokens{c} }

// Create makes a token.
func (t Tokens) Create(ctx context.Context, req TokenRequest) (TokenAuth, error) {
	path := "/auth/token/create"
	if req.Orphan {
		path += "-orphan"
	}
	return t.given(ctx, path, req)
}

// Renew lets a token live on: for increment, or for its own TTL if that is 0.
func (t Tokens) Renew(ctx context.Context, id TokenID, increment time.Duration) (TokenAuth, error) {
	path, body := id.at("renew")
	if increment > 0 {
		body["increment"] = increment.String()
	}
	return t.given(ctx, path, body)
}

func (t Tokens) given(ctx context.Context, path string, body any) (TokenAuth, error) {
	var out struct {
		Auth     TokenAuth `json:"auth"`
		Warnings []string  `json:"warnings"`
	}
	_, err := t.c.Do(ctx, http.MethodPost, path, body, &out)
	out.Auth.Warnings = out.Warnings
	return out.Auth, err
}

// Lookup describes a token.
func (t Tokens) Lookup(ctx context.Context, id TokenID) (TokenInfo, error) {
	var out struct {
		Data TokenInfo `json:"data"`
	}
	var err error
	if path, body := id.at("lookup"); id == (TokenID{}) {
		_, err = t.c.Do(ctx, http.MethodGet, path, nil, &out)
	} else {
		_, err = t.c.Do(ctx, http.MethodPost, path, body, &out)
	}
	return out.Data, err
}

// Revoke ends a token and all its children.
func (t Tokens) Revoke(ctx context.Context, id TokenID) error {
	path, body := id.at("revoke")
	_, err := t.c.Do(ctx, http.MethodPost, path, body, nil)
	return err
}

// RevokeOrphan ends a token; its children become orphans and live on.
func (t Tokens) RevokeOrphan(ctx context.Context, token Secret) error {
	_, err := t.c.Do(ctx, http.MethodPost, "/auth/token/revoke-orphan", map[string]string{"token": string(token)}, nil)
	return err
}

// Accessors lists the accessors of all tokens.
func (t Tokens) Accessors(ctx context.Context) ([]string, error) {
	var out struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	_, err := t.c.do(ctx, call{method: http.MethodGet, path: "/auth/token/accessors", query: queryOf("list", "true"), out: &out})
	return out.Data.Keys, err
}

// Capabilities tells what a token may do at a path.
func (t Tokens) Capabilities(ctx context.Context, id TokenID, at string) ([]string, error) {
	path, body := id.at("capabilities")
	path = "/sys/" + path[len("/auth/token/"):]
	body["paths"] = []string{at}
	var out struct {
		Data map[string]any `json:"data"`
	}
	if _, err := t.c.Do(ctx, http.MethodPost, path, body, &out); err != nil {
		return nil, err
	}
	var can []string
	list, _ := out.Data["capabilities"].([]any)
	for _, one := range list {
		if name, ok := one.(string); ok {
			can = append(can, name)
		}
	}
	return can, nil
}
