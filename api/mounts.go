package api

import (
	"net/http"
	"strings"
)

// mount is the one place where entries are: as Vault's KV version 2 mounted there. "vault kv" asks before each command
// what is mounted at a path.
const mount = "secret/"

// mountsBase is where mounts are described.
const mountsBase = "/v1/sys/internal/ui/mounts"

type mountBody struct {
	Accessor              string            `json:"accessor"`
	Config                mountConfig       `json:"config"`
	Description           string            `json:"description"`
	ExternalEntropyAccess bool              `json:"external_entropy_access"`
	Local                 bool              `json:"local"`
	Options               map[string]string `json:"options"`
	Path                  string            `json:"path,omitempty"`
	SealWrap              bool              `json:"seal_wrap"`
	Type                  string            `json:"type"`
	UUID                  string            `json:"uuid"`
}

type mountConfig struct {
	DefaultLeaseTTL int  `json:"default_lease_ttl"`
	MaxLeaseTTL     int  `json:"max_lease_ttl"`
	ForceNoCache    bool `json:"force_no_cache"`
}

func secretMount(path string) mountBody {
	return mountBody{
		Accessor: "kv_locum", Description: "versioned entries", Options: map[string]string{"version": "2"},
		Path: path, Type: "kv", UUID: "00000000-0000-4000-8000-000000000002",
	}
}

func (a *active) mountRoutes() {
	a.routes[mountsBase] = &route{class: "sys", any: true, on: get(a.mounts)}
	a.below = append(a.below, prefix{mountsBase + "/", &route{class: "sys", any: true, on: get(a.mountOf)}})
}

func (a *active) mounts(w http.ResponseWriter, r *http.Request) {
	a.sys(w, r, map[string]any{"auth": map[string]any{}, "secret": map[string]any{mount: secretMount("")}})
}

// mountOf answers 403 where nothing is mounted, as Vault does: a 404 would tell its client that this server is older
// than mounts of version 2.
func (a *active) mountOf(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, mountsBase+"/")
	if !strings.HasPrefix(path+"/", mount) {
		a.fail(w, r, Errorf(http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to path %q: entries are kept below %q alone", path, mount))
		return
	}
	a.sys(w, r, secretMount(mount))
}
