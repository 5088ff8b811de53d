package api

import (
	"errors"
	"net/http"
	"strings"
)

// Op is what a request wants to do to a path.
type Op string

// The ops, as policies name them.
const (
	Read   Op = "read"
	List   Op = "list"
	Create Op = "create" // write what may not be there yet
	Update Op = "update"
	Patch  Op = "patch"
	Delete Op = "delete"
)

// Access is what a token is asked for.
type Access struct {
	Path string // without "/v1/": "secret/data/app"
	Op   Op
	Sudo bool // a path that takes the power of root
}

// tokenOf takes the token from the request; "" if there is none.
func tokenOf(r *http.Request) string {
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
	if !errors.Is(err, ErrDenied) {
		rs.fail(w, r, err)
		return
	}
	body := errorBody{Errors: []string{ErrDenied.Error()}}
	if tokenOf(r) == "" {
		body.Errors = append(body.Errors, "no token was sent: put one in the header X-Vault-Token, or Authorization: Bearer")
	}
	rs.reply(w, http.StatusForbidden, body)
}
