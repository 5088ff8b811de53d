package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/locum-ha/locum/kv"
)

// KV keeps versioned entries. [kv.Store] is one; its comments say what the methods and their errors mean.
type KV interface {
	Read(ctx context.Context, path string, version uint64) (*kv.Secret, error)
	Subkeys(ctx context.Context, path string, version uint64, depth int) (*kv.Secret, error)
	Write(ctx context.Context, path string, data kv.Object, o kv.WriteOptions) (*kv.VersionMetadata, error)
	Patch(ctx context.Context, path string, patch kv.Object, o kv.WriteOptions) (*kv.VersionMetadata, error)
	DeleteLatest(ctx context.Context, path string, req kv.Request) error
	Delete(ctx context.Context, path string, versions []uint64, req kv.Request) error
	Undelete(ctx context.Context, path string, versions []uint64, req kv.Request) error
	Destroy(ctx context.Context, path string, versions []uint64, req kv.Request) error
	ReadMetadata(ctx context.Context, path string) (*kv.Metadata, error)
	UpdateMetadata(ctx context.Context, path string, u kv.MetadataUpdate, req kv.Request) error
	PatchMetadata(ctx context.Context, path string, p kv.MetadataPatch, req kv.Request) error
	DeleteMetadata(ctx context.Context, path string, req kv.Request) error
	List(ctx context.Context, path, after string, limit int) ([]string, error)
	Config(ctx context.Context) (kv.Config, error)
	UpdateConfig(ctx context.Context, u kv.ConfigUpdate, req kv.Request) error
	Answered(ctx context.Context, path string, req kv.Request) (bool, error)
}

// kvBase is where the paths of entries begin.
const kvBase = "/v1/" + mount

// entryHandler is a handler of one entry, whose path it is given.
type entryHandler func(w http.ResponseWriter, r *http.Request, path string)

func (a *active) kvRoutes() {
	const class = "kv"
	below := func(kind string, on methods) {
		rt := &route{class: class, on: on}
		if kind == "data" || kind == "metadata" {
			rt.exists = a.entryExists
		}
		if kind == "data" {
			rt.answered = a.entryAnswered
		}
		a.below = append(a.below, prefix{kvBase + kind + "/", rt})
	}
	data, metadata := a.entry("data"), a.entry("metadata")
	below("data", get(data(a.readData)).with(both(data(a.writeData))).with(methods{
		http.MethodPatch: data(a.patchData), http.MethodDelete: data(a.deleteData),
	}))
	below("metadata", get(metadata(a.readMetadata)).with(both(metadata(a.writeMetadata))).with(methods{
		http.MethodPatch: metadata(a.patchMetadata), http.MethodDelete: metadata(a.deleteMetadata),
		methodList: a.listMetadata,
	}))
	below("delete", both(a.entry("delete")(a.markVersions(a.kv.Delete))))
	below("undelete", both(a.entry("undelete")(a.markVersions(a.kv.Undelete))))
	below("destroy", both(a.entry("destroy")(a.markVersions(a.kv.Destroy))))
	below("subkeys", get(a.entry("subkeys")(a.subkeys)))
	a.routes[kvBase+"metadata"] = &route{class: class, on: methods{methodList: a.listMetadata}}
	a.routes[kvBase+"config"] = &route{class: class, on: get(a.readKVConfig).with(both(a.writeKVConfig))}
}

// entryExists reports whether there is an entry, of whatever versions, at "secret/data/…" or "secret/metadata/…".
func (a *active) entryExists(ctx context.Context, path string) (bool, error) {
	_, path, _ = strings.Cut(strings.TrimPrefix(path, mount), "/")
	_, err := a.kv.ReadMetadata(ctx, path)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// entryAnswered reports whether a write of an entry's data was carried out before.
func (a *active) entryAnswered(r *http.Request) (bool, error) {
	return a.kv.Answered(r.Context(), strings.TrimPrefix(r.URL.Path, kvBase+"data/"), a.writer(r))
}

// entry takes the entry's path out of the URL, below one of the kinds.
func (a *active) entry(kind string) func(entryHandler) http.HandlerFunc {
	base := kvBase + kind + "/"
	return func(h entryHandler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			path := r.URL.Path[len(base):]
			if path == "" {
				a.fail(w, r, Errorf(http.StatusBadRequest, "the path of an entry is missing: write it after %q", base))
				return
			}
			h(w, r, path)
		}
	}
}

// writer says who the request is, for the entry that it writes (P6).
func (a *active) writer(r *http.Request) kv.Request {
	info := a.cfg.RequestInfo(r.Context())
	id := info.Key
	if id == "" {
		id = info.ID
	}
	return kv.Request{ID: id, Slot: info.Slot, Repeat: info.Repeat}
}

// numberIn takes a number from the query; 0 if it is not there.
func numberIn(r *http.Request, name string) (uint64, error) {
	if r.URL.RawQuery == "" {
		return 0, nil
	}
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, Errorf(http.StatusBadRequest, "the parameter %s must be a whole number from 0 on, not %s", name, shown(text))
	}
	return n, nil
}

func (a *active) readData(w http.ResponseWriter, r *http.Request, path string) {
	version, err := numberIn(r, "version")
	var secret *kv.Secret
	if err == nil {
		secret, err = a.kv.Read(r.Context(), path, version)
	}
	a.replySecret(w, r, "data", secret, err)
}

func (a *active) subkeys(w http.ResponseWriter, r *http.Request, path string) {
	version, err := numberIn(r, "version")
	var depth uint64
	if err == nil {
		depth, err = numberIn(r, "depth")
	}
	var secret *kv.Secret
	if err == nil {
		secret, err = a.kv.Subkeys(r.Context(), path, version, int(depth))
	}
	a.replySecret(w, r, "subkeys", secret, err)
}

// writeBody is what is written at an entry. The data are kept as they came.
type writeBody struct {
	Data    kv.Object     `json:"data"`
	Options *writeOptions `json:"options"`
}

type writeOptions struct {
	CAS number `json:"cas"`
}

// decodeWrite reads the body of a write. The data are a JSON value, but not yet known to be a valid one: whoever takes
// them checks that ([kv.Store.Write]).
func (a *active) decodeWrite(w http.ResponseWriter, r *http.Request) (kv.Object, kv.WriteOptions, error) {
	o := kv.WriteOptions{Request: a.writer(r)}
	body, err := a.readBody(w, r)
	if err != nil {
		return nil, o, err
	}
	var in writeBody
	data, options, plain := splitWrite(body)
	if plain && options != nil {
		plain = json.Unmarshal(options, &in.Options) == nil
	}
	if plain {
		in.Data = data
	} else if err := decodeObject(body, &in, false); err != nil {
		return nil, o, err
	}
	if len(in.Data) == 0 || string(in.Data) == "null" {
		return nil, o, Errorf(http.StatusBadRequest, "no data provided: the entry belongs into the field \"data\" of the body")
	}
	if in.Options != nil && in.Options.CAS.set {
		cas := int(in.Options.CAS.value)
		o.CAS = &cas
	}
	return in.Data, o, nil
}

func (a *active) writeData(w http.ResponseWriter, r *http.Request, path string) {
	data, o, err := a.decodeWrite(w, r)
	var meta *kv.VersionMetadata
	if err == nil {
		meta, err = a.kv.Write(r.Context(), path, data, o)
	}
	a.replyVersion(w, r, meta, err)
}

// mergePatch is the media type of a patch (RFC 7396).
const mergePatch = "application/merge-patch+json"

// checkPatch refuses a patch of another kind.
func checkPatch(r *http.Request) error {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(kind), mergePatch) {
		return Errorf(http.StatusUnsupportedMediaType, "PATCH requires Content-Type of %s, provided %q", mergePatch, kind)
	}
	return nil
}

func (a *active) patchData(w http.ResponseWriter, r *http.Request, path string) {
	err := checkPatch(r)
	var data kv.Object
	var o kv.WriteOptions
	if err == nil {
		data, o, err = a.decodeWrite(w, r)
	}
	var meta *kv.VersionMetadata
	if err == nil {
		meta, err = a.kv.Patch(r.Context(), path, data, o)
	}
	a.replyVersion(w, r, meta, err)
}

func (a *active) deleteData(w http.ResponseWriter, r *http.Request, path string) {
	a.replyDone(w, r, a.kv.DeleteLatest(r.Context(), path, a.writer(r)))
}

// markVersions deletes, undeletes or destroys the versions that the body names.
func (a *active) markVersions(mark func(context.Context, string, []uint64, kv.Request) error) entryHandler {
	return func(w http.ResponseWriter, r *http.Request, path string) {
		var body struct {
			Versions versions `json:"versions"`
		}
		err := a.decode(w, r, &body, false)
		if err == nil && len(body.Versions) == 0 {
			err = Errorf(http.StatusBadRequest, "No version number provided: list at least one in the field \"versions\"")
		}
		if err == nil {
			err = mark(r.Context(), path, body.Versions, a.writer(r))
		}
		a.replyDone(w, r, err)
	}
}
