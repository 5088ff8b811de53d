package api

import (
	"net/http"
	"time"

	"github.com/locum-ha/locum/kv"
)

func (a *active) readMetadata(w http.ResponseWriter, r *http.Request, path string) {
	meta, err := a.kv.ReadMetadata(r.Context(), path)
	if err != nil {
		a.failEntry(w, r, "data", err)
		return
	}
	a.secret(w, r, http.StatusOK, meta)
}

// settings are the fields that entries' metadata and the configuration of all entries have in common.
type settings struct {
	MaxVersions        number   `json:"max_versions"`
	CASRequired        boolean  `json:"cas_required"`
	DeleteVersionAfter duration `json:"delete_version_after"`
}

// changes gives what was set, nil for the rest.
func (s settings) changes() (maxVersions *int, casRequired *bool, deleteAfter *time.Duration) {
	if s.MaxVersions.set {
		n := int(s.MaxVersions.value)
		maxVersions = &n
	}
	if s.CASRequired.set {
		casRequired = &s.CASRequired.value
	}
	if s.DeleteVersionAfter.set {
		deleteAfter = &s.DeleteVersionAfter.value
	}
	return maxVersions, casRequired, deleteAfter
}

func (a *active) writeMetadata(w http.ResponseWriter, r *http.Request, path string) {
	var body struct {
		settings
		Custom map[string]string `json:"custom_metadata"`
	}
	err := a.decode(w, r, &body, true)
	if err == nil {
		u := kv.MetadataUpdate{CustomMetadata: body.Custom}
		u.MaxVersions, u.CASRequired, u.DeleteVersionAfter = body.changes()
		err = a.kv.UpdateMetadata(r.Context(), path, u, a.writer(r))
	}
	a.replyDone(w, r, err)
}

func (a *active) patchMetadata(w http.ResponseWriter, r *http.Request, path string) {
	var body struct {
		settings
		Custom map[string]*string `json:"custom_metadata"`
	}
	err := checkPatch(r)
	if err == nil {
		err = a.decode(w, r, &body, false)
	}
	if err == nil {
		p := kv.MetadataPatch{CustomMetadata: body.Custom}
		p.MaxVersions, p.CASRequired, p.DeleteVersionAfter = body.changes()
		err = a.kv.PatchMetadata(r.Context(), path, p, a.writer(r))
	}
	a.replyDone(w, r, err)
}

func (a *active) deleteMetadata(w http.ResponseWriter, r *http.Request, path string) {
	a.replyDone(w, r, a.kv.DeleteMetadata(r.Context(), path, a.writer(r)))
}

// listMetadata lists the names below a path, also below the empty one. As in Vault, a path without any is 404.
func (a *active) listMetadata(w http.ResponseWriter, r *http.Request) {
	path := ""
	if base := kvBase + "metadata/"; len(r.URL.Path) > len(base) {
		path = r.URL.Path[len(base):]
	}
	limit, err := numberIn(r, "limit")
	var keys []string
	if err == nil {
		keys, err = a.kv.List(r.Context(), path, r.URL.Query().Get("after"), int(limit))
	}
	switch {
	case err != nil:
		a.failEntry(w, r, "data", err)
	case len(keys) == 0:
		a.failEntry(w, r, "data", kv.ErrNotFound)
	default:
		a.secret(w, r, http.StatusOK, map[string][]string{"keys": keys})
	}
}

func (a *active) readKVConfig(w http.ResponseWriter, r *http.Request) {
	config, err := a.kv.Config(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.secret(w, r, http.StatusOK, map[string]any{
		"max_versions": config.MaxVersions, "cas_required": config.CASRequired, "delete_version_after": config.DeleteVersionAfter.String(),
	})
}

func (a *active) writeKVConfig(w http.ResponseWriter, r *http.Request) {
	var body settings
	err := a.decode(w, r, &body, true)
	if err == nil {
		var u kv.ConfigUpdate
		u.MaxVersions, u.CASRequired, u.DeleteVersionAfter = body.changes()
		err = a.kv.UpdateConfig(r.Context(), u, a.writer(r))
	}
	a.replyDone(w, r, err)
}
