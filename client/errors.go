package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// What an answer can mean. errors.Is finds them in an *Error.
var (
	// ErrNotFound: there is nothing at the path (404).
	ErrNotFound = errors.New("not found")
	// ErrDenied: the token is missing or may not do this (403).
	ErrDenied = errors.New("permission denied")
	// ErrUnavailable: the node cannot serve this now, and it was not carried out (503).
	ErrUnavailable = errors.New("not available now")
	// ErrUnknown: the request may or may not have been carried out. Read before repeating it.
	ErrUnknown = errors.New("outcome unknown")
	// ErrUnreachable: no connection could be made; nothing was sent.
	ErrUnreachable = errors.New("cannot connect")
	// ErrRedirect: a redirect that is not followed.
	ErrRedirect = errors.New("redirect not followed")
)

// Error is an answer other than a 2xx.
type Error struct {
	Status     int
	Method     string
	Path       string
	Messages   []string      // errors[] of the answer
	Processed  string        // "", "no" or "unknown"
	RequestID  string        // as in the nodes' logs
	RetryAfter time.Duration // 0 if the answer has none
}

func (e *Error) Error() string {
	said := strings.Join(e.Messages, "; ")
	if said == "" {
		said = http.StatusText(e.Status)
	}
	text := fmt.Sprintf("%s (HTTP %d to %s %s)", said, e.Status, e.Method, e.Path)
	if e.RequestID != "" && (e.Processed == "unknown" || e.Status >= 500) {
		text += ", request " + e.RequestID
	}
	return text
}

// Is makes errors.Is find the meaning.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound
	case ErrDenied:
		return e.Status == http.StatusForbidden
	case ErrUnknown:
		return e.Processed == "unknown"
	case ErrUnavailable:
		return e.Status == http.StatusServiceUnavailable && e.Processed != "unknown"
	}
	return false
}

// maxErrorBody bounds what is read of an error answer.
const maxErrorBody = 64 << 10

func errorFrom(resp *http.Response, body []byte) *Error {
	e := &Error{
		Status:     resp.StatusCode,
		Method:     resp.Request.Method,
		Path:       resp.Request.URL.Path,
		RequestID:  resp.Header.Get("X-Request-Id"),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	var said struct {
		Errors    []string `json:"errors"`
		Processed string   `json:"processed"`
		RequestID string   `json:"request_id"`
	}
	if err := json.Unmarshal(body, &said); err == nil {
		e.Messages, e.Processed = said.Errors, said.Processed
		if said.RequestID != "" {
			e.RequestID = said.RequestID
		}
	} else if text := strings.TrimSpace(string(body)); text != "" && len(text) < 200 && !strings.HasPrefix(text, "<") {
		e.Messages = []string{text} // something in between, such as a proxy
	}
	return e
}
