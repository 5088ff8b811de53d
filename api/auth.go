package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/locum-ha/locum/auth"
)

// Op is what a request wants to do to a path.
type Op = auth.Op

// The ops, as policies name them.
const (
	Read   = auth.Read
	List   = auth.List
	Create = auth.Create
	Update = auth.Update
	Patch  = auth.Patch
	Delete = auth.Delete
)

// Access is what a token is asked for.
type Access = auth.Access

// bearerKey is under which a request's context has the token of its bearer, where a route wants it.
type bearerKey struct{}

func withBearer(r *http.Request, t *auth.Token) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), bearerKey{}, t))
}

// bearerOf gives the token of a request's bearer, as it is for this request.
func bearerOf(r *http.Request) *auth.Token {
	t, _ := r.Context().Value(bearerKey{}).(*auth.Token)
	return t
}

// TokenOf takes the token from the request; "" if there is none.
func TokenOf(r *http.Request) string {
	if token := r.Header.Get("X-Vault-Token"); token != "" {
		return token
	}
	const scheme = "bearer "
	if value := r.Header.Get("Authorization"); len(value) > len(scheme) && strings.EqualFold(value[:len(scheme)], scheme) {
		return strings.TrimSpace(value[len(scheme):])
	}
	return ""
}

// unsupported refuses what a client of Vault can ask for by a header and would be wrong to take for done.
func unsupported(r *http.Request) error {
	if ttl := r.Header.Get("X-Vault-Wrap-Ttl"); ttl != "" && ttl != "0" {
		return Errorf(http.StatusBadRequest, "response wrapping is not supported: leave the header X-Vault-Wrap-TTL out")
	}
	if ns := strings.Trim(r.Header.Get("X-Vault-Namespace"), "/"); ns != "" && ns != "root" {
		return Errorf(http.StatusBadRequest, "namespaces are not supported: leave the header X-Vault-Namespace out")
	}
	return nil
}

// deny answers a request whose token was not accepted. The first sentence is the one that Vault's clients look for.
func (rs responder) deny(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, ErrDenied) && !errors.Is(err, auth.ErrDenied) {
		rs.fail(w, r, err)
		return
	}
	// Whether the token is known is not told: it would help who tries some out.
	hint := "the token has been revoked or has run out, or its policies do not allow this: look at auth/token/lookup-self and sys/capabilities-self with it"
	if TokenOf(r) == "" {
		hint = "no token was sent: put one in the header X-Vault-Token, or Authorization: Bearer"
	}
	rs.reply(w, http.StatusForbidden, errorBody{Errors: []string{ErrDenied.Error(), hint}})
}
