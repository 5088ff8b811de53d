package keyed

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

const format = 1

// maxKey is how long a key may be, in bytes.
const maxKey = 256

var (
	errKey     = errors.New("the Idempotency-Key header is not one quoted string of 1 to 256 visible characters")
	errFormat  = errors.New("written by a newer version of Locum")
	errUnknown = errors.New("a request with this Idempotency-Key was being carried out when its node or its application was lost: nobody knows whether it was")
)

// The states of a record.
const (
	running = "running"
	done    = "done"
)

// record is what is stored under a key.
type record struct {
	Format  int       `json:"format"`
	State   string    `json:"state"`
	Print   []byte    `json:"fingerprint"` // of the request
	Caller  []byte    `json:"caller"`      // of who asks
	Term    uint64    `json:"term"`
	Attempt string    `json:"attempt"` // differs for every delivery
	Expires time.Time `json:"expires"`
	Answer  *stored   `json:"answer,omitempty"`
}

// stored is an answer. Size is its body's length where that was too long to be kept.
type stored struct {
	Status  int         `json:"status"`
	Header  http.Header `json:"header,omitempty"`
	Body    []byte      `json:"body,omitempty"`
	Trailer http.Header `json:"trailer,omitempty"`
	Dropped int64       `json:"dropped,omitempty"`
}

func (r *record) encode() ([]byte, error) {
	r.Format = format
	return json.Marshal(r)
}

func decode(data []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("record of an Idempotency-Key: %w", err)
	}
	if r.Format > format {
		return nil, fmt.Errorf("record of an Idempotency-Key: %w: format %d, this build knows %d", errFormat, r.Format, format)
	}
	return &r, nil
}

// Keyed reports whether a request asks to be carried out once: it has a key, and is not safe to repeat anyway.
func Keyed(r *http.Request) bool {
	if len(r.Header["Idempotency-Key"]) == 0 || r.Header["Upgrade"] != nil {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return false
	}
	return true
}

// keyOf is the key: a string of structured fields (RFC 8941 §3.3.3), or without its quotes, as many clients send it.
func keyOf(r *http.Request) (string, error) {
	values := r.Header["Idempotency-Key"]
	if len(values) != 1 {
		return "", errKey
	}
	key := strings.TrimSpace(values[0])
	if strings.HasPrefix(key, `"`) {
		if len(key) < 2 || !strings.HasSuffix(key, `"`) {
			return "", errKey
		}
		key = key[1 : len(key)-1]
	}
	if key == "" || len(key) > maxKey {
		return "", errKey
	}
	for i := range len(key) {
		if c := key[i]; c < ' ' || c > '~' || c == '"' {
			return "", errKey
		}
	}
	return key, nil
}

// name is what a key's entries are called. The store sees names in plain, and a key may be a secret of the client's.
func name(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// fingerprint is of what is asked. The host does not count: a client may ask another node under another name.
func fingerprint(r *http.Request, body []byte) []byte {
	h := sha256.New()
	part(h, r.Method, uri(r), strings.Join(r.Header["Content-Type"], ","), strings.Join(r.Header["Content-Encoding"], ","), string(body))
	for _, name := range slices.Sorted(maps.Keys(r.Trailer)) {
		part(h, name, strings.Join(r.Trailer[name], "\n"))
	}
	return h.Sum(nil)
}

func uri(r *http.Request) string {
	if r.RequestURI != "" {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// caller is of who asks.
func caller(r *http.Request) []byte {
	h := sha256.New()
	for _, field := range []string{"Authorization", "Cookie", "X-Api-Key"} {
		part(h, field, strings.Join(r.Header[field], "\n"))
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		part(h, "certificate", string(r.TLS.PeerCertificates[0].Raw))
	}
	return h.Sum(nil)
}

// part writes strings so that no two lists look the same.
func part(h io.Writer, parts ...string) {
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		_, _ = h.Write(n[:])
		_, _ = io.WriteString(h, p)
	}
}
