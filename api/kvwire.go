package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/locum-ha/locum/kv"
)

// The answers to reads and writes of entries are put together from the bytes that were stored: what is in an entry is
// never decoded, and not encoded again.

// envelopeSize is about what the envelope and a version's metadata take.
const envelopeSize = 512

// bodies holds buffers for answers, which nobody keeps once they are written.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

const maxBody = 64 << 10 // of a buffer that is used again

// appendEnvelope begins the envelope, up to its data.
func appendEnvelope(b []byte, requestID string) []byte {
	b = append(b, `{"request_id":`...)
	b = appendString(b, requestID)
	return append(b, `,"lease_id":"","renewable":false,"lease_duration":0,"data":`...)
}

const envelopeEnd = `,"wrap_info":null,"warnings":null,"auth":null}` + "\n"

// appendString encodes a string. Request ids rarely need more than quotes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always can be
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// replySecret answers with {"NAME": the entry, "metadata": its version's}.
func (a *active) replySecret(w http.ResponseWriter, r *http.Request, name string, secret *kv.Secret, err error) {
	if err != nil {
		a.failEntry(w, r, name, err)
		return
	}
	a.writeSecret(w, r, http.StatusOK, name, secret.Data, secret.Metadata)
}

func (a *active) writeSecret(w http.ResponseWriter, r *http.Request, code int, name string, data []byte, meta kv.VersionMetadata) {
	buf := bodies.Get().(*[]byte)
	b := appendEnvelope(slices.Grow((*buf)[:0], len(data)+envelopeSize), a.cfg.RequestInfo(r.Context()).ID)
	b = append(b, `{"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	b = append(b, data...)
	b = append(b, `,"metadata":`...)
	b = meta.AppendJSON(b)
	b = append(b, '}')
	b = append(b, envelopeEnd...)
	raw(w, code, b)
	if cap(b) <= maxBody {
		*buf = b
		bodies.Put(buf)
	}
}

// replyVersion answers a write with the version that it made.
func (a *active) replyVersion(w http.ResponseWriter, r *http.Request, meta *kv.VersionMetadata, err error) {
	if err != nil {
		a.failEntry(w, r, "data", err)
		return
	}
	b := appendEnvelope(make([]byte, 0, envelopeSize), a.cfg.RequestInfo(r.Context()).ID)
	b = meta.AppendJSON(b)
	raw(w, http.StatusOK, append(b, envelopeEnd...))
}

// replyDone answers a change that has nothing to show.
func (a *active) replyDone(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		a.failEntry(w, r, "data", err)
		return
	}
	empty(w)
}

// failEntry answers an error of an entry. What is not there is 404 without a sentence, and what was deleted is 404 with
// what is left of it: Vault's clients take both for "no value", and anything else for a failure.
func (a *active) failEntry(w http.ResponseWriter, r *http.Request, name string, err error) {
	var deleted *kv.DeletedError
	switch {
	case errors.As(err, &deleted):
		a.writeSecret(w, r, http.StatusNotFound, name, []byte("null"), deleted.Metadata)
	case errors.Is(err, kv.ErrNotFound):
		raw(w, http.StatusNotFound, []byte(`{"errors":[]}`+"\n"))
	default:
		a.fail(w, r, err)
	}
}
