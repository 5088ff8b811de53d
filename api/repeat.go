package api

import (
	"net/http"
	"strings"
)

// Repeatable reports whether the request is a write whose id is committed together with it, so that it can be sent again
// after an unknown outcome and is still carried out once (P6): the writes of entries, tokens and policies, and no others;
// questions that are asked by POST may be repeated, too. A repeated step-down, for one, would depose the next node too.
func Repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		return false
	}
	if isLock(r.URL.Path) {
		return r.Method != http.MethodDelete // under its secret all else is the same when done twice
	}
	rest, ok := strings.CutPrefix(r.URL.Path, kvBase)
	if !ok {
		return repeatableAuth(r.URL.Path)
	}
	if rest == "config" {
		return true
	}
	kind, path, _ := strings.Cut(rest, "/")
	if path == "" {
		return false
	}
	switch kind {
	case "data", "metadata", "delete", "undelete", "destroy":
		return true
	}
	return false
}

// repeatableAuth is Repeatable for tokens and policies.
func repeatableAuth(path string) bool {
	if rest, ok := strings.CutPrefix(path, tokenBase); ok {
		return !strings.Contains(rest, "/")
	}
	return strings.HasPrefix(path, policiesBase+"/") || strings.HasPrefix(path, policyBase+"/") || strings.HasPrefix(path, capabilitiesBase)
}

// Safe reports whether the request changes nothing, so that it can be sent again at any time (RFC 9110 §9.2.1). LIST
// is Vault's own method for a GET with list=true.
func Safe(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, methodList:
		return true
	}
	return false
}
