// Package fake is a server in memory that speaks the entry API and makes, on demand, the mistakes that the
// checkers of load and history must find. It is there to test the tests.
package fake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// KV answers /v1/secret/data/* and /v1/secret/metadata/*. The zero value is a correct server.
type KV struct {
	// Before, if set, sees every request first. It returns false when it has answered itself.
	Before func(w http.ResponseWriter, r *http.Request) bool
	// Twice, if set, says whether a write is carried out twice.
	Twice func(key string) bool
	// Lose, if set, says whether a write is acknowledged and forgotten.
	Lose func(key string) bool
	// Stale, if set, says how many versions a read is behind.
	Stale func(key string) int

	mu      sync.Mutex
	entries map[string][]json.RawMessage // the versions of each
}

func (s *KV) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Before != nil && !s.Before(w, r) {
		return
	}
	kind, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/secret/"), "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := s.entries[key]
	switch {
	case r.Method != http.MethodGet:
		s.write(w, r, key)
	case len(versions) == 0:
		reply(w, http.StatusNotFound, map[string]any{"errors": []string{}})
	case kind == "metadata":
		reply(w, http.StatusOK, map[string]any{"data": map[string]any{"current_version": len(versions)}})
	default:
		at := len(versions)
		if s.Stale != nil {
			at = max(1, at-s.Stale(key))
		}
		reply(w, http.StatusOK, map[string]any{"data": map[string]any{"data": versions[at-1], "metadata": map[string]any{"version": at}}})
	}
}

func (s *KV) write(w http.ResponseWriter, r *http.Request, key string) {
	var in struct {
		Data    json.RawMessage `json:"data"`
		Options struct {
			CAS *int `json:"cas"`
		} `json:"options"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"errors": []string{err.Error()}})
		return
	}
	versions := s.entries[key]
	if in.Options.CAS != nil && *in.Options.CAS != len(versions) {
		reply(w, http.StatusBadRequest, map[string]any{"errors": []string{"check-and-set parameter did not match the current version"}})
		return
	}
	times := 1
	if s.Twice != nil && s.Twice(key) {
		times = 2
	}
	if s.Lose != nil && s.Lose(key) {
		times = 0
	}
	if s.entries == nil {
		s.entries = make(map[string][]json.RawMessage)
	}
	answer := len(versions) + max(times, 1)
	for range times {
		versions = append(versions, in.Data)
	}
	s.entries[key] = versions
	reply(w, http.StatusOK, map[string]any{"data": map[string]any{"version": answer}})
}

func reply(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}
