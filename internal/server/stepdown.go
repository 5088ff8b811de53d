package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/locum-ha/locum/api"
)

const (
	stepDownPath = "/v1/sys/step-down"
	stepDownBody = 64 << 10 // bytes of a step-down request
	stepDownWait = 10 * time.Minute
)

// steppingDown lets the node at which a step-down arrives do the waiting for the next active node, if that was asked for:
// the active node cannot, since its step-down waits for all requests in flight there, this one among them.
func (s *Server) steppingDown(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != stepDownPath || r.Method != http.MethodPost && r.Method != http.MethodPut {
			next.ServeHTTP(w, r)
			return
		}
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, stepDownBody))
		if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
			answerJSON(w, http.StatusRequestEntityTooLarge, map[string]any{"errors": []string{"a step-down request is a few bytes of JSON: send none, or to and wait"}})
			return
		}
		if err != nil {
			answerJSON(w, http.StatusBadRequest, map[string]any{
				"errors": []string{"the body broke off before its end, and nothing was done: send it again"}, "processed": "no"})
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
		wait := api.StepDownWait(data)
		if wait <= 0 {
			next.ServeHTTP(w, r)
			return
		}
		s.stepDownAndWait(w, r, next, min(wait, stepDownWait))
	})
}

func (s *Server) stepDownAndWait(w http.ResponseWriter, r *http.Request, next http.Handler, wait time.Duration) {
	before := s.leaderNow().Term
	rec := newRecorder()
	next.ServeHTTP(rec, r)
	if rec.code != http.StatusNoContent {
		rec.sendTo(w)
		return
	}
	// The term that the request ran in: this node's own view can be older.
	if term, err := strconv.ParseUint(rec.Header().Get("X-Locum-Term"), 10, 64); err == nil {
		before = max(before, term)
	}
	ctx := r.Context()
	limit := time.NewTimer(wait)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if l := s.leaderNow(); l.Term > before && s.serves(ctx, l) {
			answerJSON(w, http.StatusOK, map[string]any{
				"node": l.Name, "node_id": l.NodeID, "term": l.Term,
				"leader_address": l.APIAddr, "leader_cluster_address": l.ClusterAddr,
			})
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			answerJSON(w, http.StatusServiceUnavailable, map[string]any{"errors": []string{
				"the active node has begun to step down, but no other serves after " + wait.String() + ": locum status and locum operator members tell why"}})
			return
		case <-ctx.Done():
			return
		}
	}
}

// servingPath is where the active node tells the others whether its activation is over, applications included: until then it
// leads, and serves nobody.
const servingPath = "/v1/sys/internal/serving"

// servingLimit bounds the question.
const servingLimit = time.Second

// serves reports whether l serves: this node knows it of itself, and asks any other.
func (s *Server) serves(ctx context.Context, l api.Leader) bool {
	if l.NodeID == s.id {
		return true // leaderNow says so only then
	}
	ctx, cancel := context.WithTimeout(ctx, servingLimit)
	defer cancel()
	answer, err := s.askActive(ctx, http.MethodGet, servingPath, "", nil)
	var now struct {
		Term uint64 `json:"term"`
	}
	return err == nil && json.Unmarshal(answer, &now) == nil && now.Term == l.Term
}

// tellingWhetherItServes answers them.
func (l *leading) tellingWhetherItServes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != servingPath:
			next.ServeHTTP(w, r)
		case l.node.isActive():
			answerJSON(w, http.StatusOK, map[string]any{"term": l.term.Term})
		default:
			answerJSON(w, http.StatusServiceUnavailable, map[string]any{"errors": []string{"not active yet"}})
		}
	})
}

func answerJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) // the client may be gone: there is nobody to tell
}
