package server

import (
	"bytes"
	"net/http"
)

// recorder keeps an answer in memory: that to a request of this node's own, or one that is looked at before it is sent on.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: http.Header{}, code: http.StatusOK} }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// WriteHeader keeps the last one: those before it are informational.
func (r *recorder) WriteHeader(code int) { r.code = code }

// Flush does nothing: the answer is read when it is whole.
func (r *recorder) Flush() {}

// sendTo sends the answer on. The client may be gone: there is nobody to tell.
func (r *recorder) sendTo(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.code)
	_, _ = w.Write(r.body.Bytes())
}
