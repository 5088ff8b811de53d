package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// retryAfter is what a 503 tells the client to wait, in seconds: a change of the active node takes less.
const retryAfter = "1"

// responder writes the answers of one handler.
type responder struct {
	cfg Config
}

// Values that every answer shares. Nobody changes a header's value in place.
var (
	noStore  = []string{"no-store"}
	jsonType = []string{"application/json"}
)

// header sets what every answer carries.
func header(w http.ResponseWriter, code int) {
	h := w.Header()
	h["Cache-Control"] = noStore
	if code == http.StatusServiceUnavailable {
		h.Set("Retry-After", retryAfter)
	}
}

// raw writes a body that is JSON already. HEAD gets its length and nothing else.
func raw(w http.ResponseWriter, code int, body []byte) {
	header(w, code)
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(code)
	w.Write(body) // the client may be gone: there is nobody to tell
}

// reply writes v as JSON.
func (rs responder) reply(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		rs.cfg.Logger.Error("api: answer is not JSON", "error", err)
		code, body = http.StatusInternalServerError, []byte(`{"errors":["internal error"]}`)
	}
	raw(w, code, append(body, '\n'))
}

// empty writes an answer without a body.
func empty(w http.ResponseWriter) {
	header(w, http.StatusNoContent)
	w.WriteHeader(http.StatusNoContent)
}

// errorBody is the shape of every error.
type errorBody struct {
	Errors    []string `json:"errors"`
	Processed string   `json:"processed,omitempty"`
	RequestID string   `json:"request_id,omitempty"`
}

// fail answers with an error, or leaves it to Deposed.
func (rs responder) fail(w http.ResponseWriter, r *http.Request, err error) {
	if notActive(err) && rs.cfg.Deposed(r, err) {
		return
	}
	id := rs.cfg.RequestInfo(r.Context()).ID
	answer, internal := answerTo(err)
	if internal {
		rs.cfg.Logger.Error("api: request failed", "method", r.Method, "path", r.URL.Path, "request_id", id, "client", r.RemoteAddr, "error", err)
		answer = Errorf(http.StatusInternalServerError, "internal error: this node's log says more, under the request's id")
	}
	body := errorBody{Errors: []string{answer.Message}, Processed: answer.Processed}
	if answer.Processed == ProcessedUnknown || internal {
		body.RequestID = id
	}
	rs.reply(w, answer.Status, body)
}

// envelope is the frame of Vault's answers.
type envelope struct {
	RequestID     string   `json:"request_id"`
	LeaseID       string   `json:"lease_id"`
	Renewable     bool     `json:"renewable"`
	LeaseDuration int      `json:"lease_duration"`
	Data          any      `json:"data"`
	WrapInfo      any      `json:"wrap_info"`
	Warnings      []string `json:"warnings"`
	Auth          any      `json:"auth"`
}

// secret answers with data in the envelope.
func (rs responder) secret(w http.ResponseWriter, r *http.Request, code int, data any, warnings ...string) {
	rs.reply(w, code, envelope{RequestID: rs.cfg.RequestInfo(r.Context()).ID, Data: data, Warnings: warnings})
}

// sys answers with data in the envelope and its fields beside it as well, as Vault's sys/ paths do: some clients read the
// one, some the other.
func (rs responder) sys(w http.ResponseWriter, r *http.Request, data any) {
	body, err := mergeSys(envelope{RequestID: rs.cfg.RequestInfo(r.Context()).ID, Data: data}, data)
	if err != nil {
		rs.fail(w, r, err)
		return
	}
	raw(w, http.StatusOK, body)
}

func mergeSys(frame envelope, data any) ([]byte, error) {
	outer, err := json.Marshal(frame)
	if err != nil {
		return nil, err
	}
	inner, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	if len(inner) <= len("{}") || inner[0] != '{' {
		return append(outer, '\n'), nil
	}
	merged := append(outer[:len(outer)-1], ',')
	merged = append(merged, inner[1:]...)
	return append(merged, '\n'), nil
}

// recorder notes the status code of an answer for the observer.
type recorder struct {
	http.ResponseWriter
	code int
}

func (w *recorder) WriteHeader(code int) {
	if w.code == 0 && code >= 200 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find what lies under it.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// observed runs next and tells the observer how it answered. A request that Deposed took over has no code, and is not
// counted here.
func (rs responder) observed(class string, w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request)) {
	tell := rs.cfg.Observer.Request
	if tell == nil {
		next(w, r)
		return
	}
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	next(rec, r)
	if rec.code != 0 {
		tell(class, r.Method, rec.code, time.Since(start))
	}
}
