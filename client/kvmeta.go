package client

import (
	"context"
	"net/http"
	"time"
)

// EntryMetadata is what is known of an entry over all its versions.
type EntryMetadata struct {
	CASRequired        bool                   `json:"cas_required"`
	CreatedTime        time.Time              `json:"created_time"`
	CurrentVersion     uint64                 `json:"current_version"`
	Custom             map[string]string      `json:"custom_metadata"`
	DeleteVersionAfter string                 `json:"delete_version_after"` // "0s": never
	MaxVersions        int                    `json:"max_versions"`         // 0: as the store's settings say
	OldestVersion      uint64                 `json:"oldest_version"`
	UpdatedTime        time.Time              `json:"updated_time"`
	Versions           map[string]VersionInfo `json:"versions"` // by number
}

// VersionInfo is one version in an EntryMetadata.
type VersionInfo struct {
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"` // "" while it is not deleted
	Destroyed    bool      `json:"destroyed"`
}

// MetadataChange is what to change of an entry's metadata; what is nil stays.
type MetadataChange struct {
	MaxVersions        *int
	CASRequired        *bool
	DeleteVersionAfter *time.Duration

	// Custom replaces all custom metadata with PutMetadata. With PatchMetadata it replaces single keys, and removes
	// those in RemoveCustom.
	Custom       map[string]string
	RemoveCustom []string
}

func (m MetadataChange) body() map[string]any {
	body := map[string]any{}
	if m.MaxVersions != nil {
		body["max_versions"] = *m.MaxVersions
	}
	if m.CASRequired != nil {
		body["cas_required"] = *m.CASRequired
	}
	if m.DeleteVersionAfter != nil {
		body["delete_version_after"] = m.DeleteVersionAfter.String()
	}
	if m.Custom != nil || len(m.RemoveCustom) > 0 {
		custom := map[string]any{}
		for key, value := range m.Custom {
			custom[key] = value
		}
		for _, key := range m.RemoveCustom {
			custom[key] = nil
		}
		body["custom_metadata"] = custom
	}
	return body
}

// Metadata reads an entry's metadata.
func (kv KV) Metadata(ctx context.Context, name string) (EntryMetadata, Meta, error) {
	var out struct {
		Data EntryMetadata `json:"data"`
	}
	meta, err := kv.c.Do(ctx, http.MethodGet, path("metadata", name), nil, &out)
	return out.Data, meta, err
}

// PutMetadata changes an entry's metadata, and makes the entry, without a version, if it is not there. RemoveCustom has
// no meaning here.
func (kv KV) PutMetadata(ctx context.Context, name string, change MetadataChange) (Meta, error) {
	change.RemoveCustom = nil
	return kv.c.Do(ctx, http.MethodPost, path("metadata", name), change.body(), nil)
}

// PatchMetadata changes the metadata of an entry that is there, key by key.
func (kv KV) PatchMetadata(ctx context.Context, name string, change MetadataChange) (Meta, error) {
	return kv.c.do(ctx, call{method: http.MethodPatch, path: path("metadata", name), in: change.body(), kind: mergePatch})
}

// DeleteMetadata removes an entry with all its versions, for good.
func (kv KV) DeleteMetadata(ctx context.Context, name string) (Meta, error) {
	return kv.c.Do(ctx, http.MethodDelete, path("metadata", name), nil, nil)
}
