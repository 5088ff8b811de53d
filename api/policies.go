package api

import (
	"encoding/base64"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/locum-ha/locum/auth"
)

// Where policies are. The second is the older place, with older names of fields.
const (
	policiesBase     = "/v1/sys/policies/acl"
	policyBase       = "/v1/sys/policy"
	capabilitiesBase = "/v1/sys/capabilities"
)

func (a *active) policyRoutes() {
	const class = "auth"
	for base, field := range map[string]string{policiesBase: "policy", policyBase: "rules"} {
		list := &route{class: class, on: methods{methodList: a.listPolicies}}
		if base == policyBase {
			list.on.with(get(a.listPolicies))
		}
		a.routes[base], a.routes[base+"/"] = list, list
		a.below = append(a.below, prefix{base + "/", &route{class: class, on: get(a.readPolicy(base, field)).
			with(both(a.writePolicy(base))).with(methods{http.MethodDelete: a.deletePolicy(base)})}})
	}
	a.routes[capabilitiesBase] = &route{class: class, on: both(a.capabilities)}
	a.routes[capabilitiesBase+"-self"] = &route{class: class, self: true, on: both(a.capabilitiesSelf)}
	a.routes[capabilitiesBase+"-accessor"] = &route{class: class, on: both(a.capabilitiesAccessor)}
}

func (a *active) listPolicies(w http.ResponseWriter, r *http.Request) {
	list, err := a.tokens.Policies(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	data := map[string][]string{"keys": list}
	if strings.HasPrefix(r.URL.Path, policyBase) {
		data["policies"] = list
	}
	a.sys(w, r, data)
}

func (a *active) readPolicy(base, field string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, text, err := a.tokens.Policy(r.Context(), strings.TrimPrefix(r.URL.Path, base+"/"))
		switch {
		case errors.Is(err, auth.ErrNoPolicy):
			raw(w, http.StatusNotFound, []byte(`{"errors":[]}`+"\n")) // Vault's clients take it for "no such policy"
		case err != nil:
			a.fail(w, r, err)
		default:
			a.sys(w, r, map[string]string{"name": name, field: text})
		}
	}
}

func (a *active) writePolicy(base string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Policy string `json:"policy"`
			Rules  string `json:"rules"` // an older name
		}
		err := a.decode(w, r, &body, false)
		if err == nil {
			text := body.Policy
			if text == "" {
				text = body.Rules
			}
			if plain, berr := base64.StdEncoding.DecodeString(text); berr == nil {
				text = string(plain)
			}
			err = a.tokens.SetPolicy(r.Context(), strings.TrimPrefix(r.URL.Path, base+"/"), text, a.writer(r))
		}
		a.replyDone(w, r, err)
	}
}

func (a *active) deletePolicy(base string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.replyDone(w, r, a.tokens.DeletePolicy(r.Context(), strings.TrimPrefix(r.URL.Path, base+"/"), a.writer(r)))
	}
}

// maxPaths bounds one question about capabilities (P12).
const maxPaths = 1000

type capabilitiesBody struct {
	Token    string `json:"token"`
	Accessor string `json:"accessor"`
	Paths    names  `json:"paths"`
	Path     names  `json:"path"` // an older name
}

func (a *active) decodeCapabilities(w http.ResponseWriter, r *http.Request) (capabilitiesBody, error) {
	var body capabilitiesBody
	err := a.decode(w, r, &body, false)
	if len(body.Paths) == 0 {
		body.Paths = body.Path
	}
	switch {
	case err != nil:
	case len(body.Paths) == 0:
		err = Errorf(http.StatusBadRequest, "paths must be supplied: list them in the field \"paths\"")
	case len(body.Paths) > maxPaths:
		err = Errorf(http.StatusBadRequest, "%d paths are more than the %d that can be asked about at once", len(body.Paths), maxPaths)
	}
	return body, err
}

func (a *active) capabilities(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeCapabilities(w, r)
	var t *auth.Token
	if err == nil {
		if t, err = a.tokens.Lookup(r.Context(), auth.Secret(body.Token)); errors.Is(err, auth.ErrNoToken) {
			err = Errorf(http.StatusBadRequest, "invalid token")
		}
	}
	a.replyCapabilities(w, r, t, body.Paths, err)
}

func (a *active) capabilitiesSelf(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeCapabilities(w, r)
	a.replyCapabilities(w, r, bearerOf(r), body.Paths, err)
}

func (a *active) capabilitiesAccessor(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeCapabilities(w, r)
	var t *auth.Token
	if err == nil {
		t, err = a.tokens.LookupAccessor(r.Context(), body.Accessor)
	}
	a.replyCapabilities(w, r, t, body.Paths, err)
}

// replyCapabilities answers with what a token may do at each path, and for a single path under "capabilities", too.
func (a *active) replyCapabilities(w http.ResponseWriter, r *http.Request, t *auth.Token, paths []string, err error) {
	data, beside := map[string][]string{}, map[string][]string{}
	for _, path := range paths {
		if err != nil {
			break
		}
		var can []string
		can, err = a.tokens.Capabilities(r.Context(), t, path)
		data[path] = can
		if !envelopeFields[path] {
			beside[path] = can
		}
		if len(paths) == 1 {
			data["capabilities"], beside["capabilities"] = can, can
		}
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	body, err := mergeSys(envelope{RequestID: a.cfg.RequestInfo(r.Context()).ID, Data: data}, beside)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	raw(w, http.StatusOK, body)
}

// envelopeFields are names that a path must not take the place of, beside the data.
var envelopeFields = func() map[string]bool {
	fields := map[string]bool{}
	t := reflect.TypeFor[envelope]()
	for i := range t.NumField() {
		fields[t.Field(i).Tag.Get("json")] = true
	}
	return fields
}()
