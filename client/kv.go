package client

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// KV is the versioned entries, as at secret/ in the API.
type KV struct{ c *Client }

// KV returns them.
func (c *Client) KV() KV { return KV{c} }

// Version describes one version of an entry.
type Version struct {
	Version      uint64            `json:"version"`
	CreatedTime  time.Time         `json:"created_time"`
	DeletionTime string            `json:"deletion_time"` // "" while it is not deleted
	Destroyed    bool              `json:"destroyed"`
	Custom       map[string]string `json:"custom_metadata,omitempty"`
}

// Entry is one version of an entry. Data is nil where the version was deleted.
type Entry struct {
	Data     map[string]any `json:"data"`
	Metadata Version        `json:"metadata"`
}

func path(kind, name string) string { return "/secret/" + kind + "/" + strings.Trim(name, "/") }

// Get reads an entry, in the version given or, for 0, the newest. A deleted version is ErrNotFound, with the Entry's
// Metadata filled in.
func (kv KV) Get(ctx context.Context, name string, version uint64) (Entry, Meta, error) {
	query := queryOf()
	if version > 0 {
		query.Set("version", strconv.FormatUint(version, 10))
	}
	var out struct {
		Data *Entry `json:"data"`
	}
	deleted := false
	meta, err := kv.c.do(ctx, call{method: http.MethodGet, path: path("data", name), query: query, out: &out,
		accept: func(code int) bool { deleted = code == http.StatusNotFound; return deleted }})
	if err == nil && deleted {
		err = &Error{Status: http.StatusNotFound, Method: http.MethodGet, Path: "/v1" + path("data", name), RequestID: meta.RequestID}
	}
	if out.Data == nil {
		return Entry{}, meta, err
	}
	return *out.Data, meta, err
}

// Put writes a new version. cas, unless nil, is the newest version that there must be; 0 for none.
func (kv KV) Put(ctx context.Context, name string, data map[string]any, cas *uint64) (Version, Meta, error) {
	body := map[string]any{"data": data}
	if cas != nil {
		body["options"] = map[string]any{"cas": *cas}
	}
	var out struct {
		Data Version `json:"data"`
	}
	meta, err := kv.c.Do(ctx, http.MethodPost, path("data", name), body, &out)
	return out.Data, meta, err
}

// Patch writes a new version that is the newest one with changes: keys that are there replace those of their name, keys
// with nil remove them (RFC 7396). cas is as with Put. An entry that is not there is ErrNotFound.
func (kv KV) Patch(ctx context.Context, name string, changes map[string]any, cas *uint64) (Version, Meta, error) {
	body := map[string]any{"data": changes}
	if cas != nil {
		body["options"] = map[string]any{"cas": *cas}
	}
	var out struct {
		Data Version `json:"data"`
	}
	meta, err := kv.c.do(ctx, call{method: http.MethodPatch, path: path("data", name), in: body, kind: mergePatch, out: &out})
	return out.Data, meta, err
}

// mergePatch is the media type of a patch (RFC 7396).
const mergePatch = "application/merge-patch+json"

// Delete deletes the newest version, or those given. They can be undeleted.
func (kv KV) Delete(ctx context.Context, name string, versions ...uint64) (Meta, error) {
	if len(versions) == 0 {
		return kv.c.Do(ctx, http.MethodDelete, path("data", name), nil, nil)
	}
	return kv.c.Do(ctx, http.MethodPost, path("delete", name), map[string]any{"versions": versions}, nil)
}

// Undelete takes back the deletion of versions.
func (kv KV) Undelete(ctx context.Context, name string, versions ...uint64) (Meta, error) {
	return kv.c.Do(ctx, http.MethodPost, path("undelete", name), map[string]any{"versions": versions}, nil)
}

// Destroy removes the data of versions for good.
func (kv KV) Destroy(ctx context.Context, name string, versions ...uint64) (Meta, error) {
	return kv.c.Do(ctx, http.MethodPost, path("destroy", name), map[string]any{"versions": versions}, nil)
}

// List returns the names below a folder; folders end in "/". A folder with nothing in it is ErrNotFound.
func (kv KV) List(ctx context.Context, folder string) ([]string, Meta, error) {
	var out struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	folder = strings.Trim(folder, "/")
	if folder != "" {
		folder += "/"
	}
	meta, err := kv.c.do(ctx, call{method: http.MethodGet, path: "/secret/metadata/" + folder, query: queryOf("list", "true"), out: &out})
	return out.Data.Keys, meta, err
}
