package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/locum-ha/locum/client"
	"github.com/locum-ha/locum/internal/config"
)

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Hint says what to do.
func (h *hinted) Hint() string { return h.hint }

func withHint(err error, hint string) error { return &hinted{err, hint} }

// report prints an error, a line for each fault of a configuration, and the hint if there is one.
func (a *app) report(err error) {
	var faults config.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, red, "error:"), f)
		}
	} else {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, red, "error:"), err)
	}
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(a.err, cyan, "hint:"), hint)
	}
}

// hintFor says what most probably helps.
func hintFor(err error) string {
	var known interface{ Hint() string } // *hinted, or an error of a package that knows
	if errors.As(err, &known) {
		return known.Hint()
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "the node speaks plain HTTP: write the address with http://"
	case strings.Contains(text, "HTTP request to an HTTPS server"):
		return "the node speaks TLS: write the address with https://"
	case strings.Contains(text, "failed to verify certificate"):
		return "give the authority's certificate with -ca-cert or LOCUM_CACERT"
	case errors.Is(err, client.ErrUnreachable):
		return "is a node running there? Set LOCUM_ADDR or -address; \"locum dev\" starts a cluster to try"
	case errors.Is(err, client.ErrDenied):
		return "set LOCUM_TOKEN, or give -token"
	case errors.Is(err, client.ErrUnknown):
		return "see whether it was done before you do it again"
	case errors.Is(err, client.ErrUnavailable) && strings.Contains(text, "sealed"):
		return "unseal it: locum operator unseal"
	}
	return ""
}
