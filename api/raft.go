package api

import (
	"context"
	"encoding/json"
	"net/http"
)

// raftBase is where raft's paths begin.
const raftBase = "/v1/sys/storage/raft/"

func (a *active) raftRoutes() {
	const class = "raft"
	a.routes[raftBase+"configuration"] = &route{class: class, on: get(a.withRaft(a.raftConfiguration))}
	a.routes[raftBase+"remove-peer"] = &route{class: class, sudo: true, on: both(a.withRaft(a.raftRemovePeer))}
	a.routes[raftBase+"snapshot"] = &route{class: class, sudo: true,
		on: methods{http.MethodGet: a.withRaft(a.raftSnapshot)}.with(both(a.withRaft(a.raftRestore)))}
	a.routes[raftBase+"snapshot-force"] = &route{class: class, sudo: true, on: both(a.withRaft(a.raftRestoreForce))}
	a.routes[raftBase+"bootstrap/challenge"] = &route{class: class, open: true, on: both(a.withRaft(a.raftChallenge))}
	a.routes[raftBase+"bootstrap/answer"] = &route{class: class, open: true, on: both(a.withRaft(a.raftAnswer))}
}

func (a *active) withRaft(h http.HandlerFunc) http.HandlerFunc {
	if a.raft != nil {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, Errorf(http.StatusNotFound, "raft storage is not in use: this cluster keeps its entries in another data store, whose own tools do this"))
	}
}

func (a *active) raftConfiguration(w http.ResponseWriter, r *http.Request) {
	config, err := a.raft.Configuration(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if config.Servers == nil {
		config.Servers = []RaftServer{}
	}
	a.sys(w, r, map[string]any{"config": config})
}

func (a *active) raftRemovePeer(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ServerID string `json:"server_id"`
	}
	err := a.decode(w, r, &body, false)
	if err == nil && body.ServerID == "" {
		err = Errorf(http.StatusBadRequest, "server_id is missing: name one of the node_id values of %sconfiguration", raftBase)
	}
	if err == nil {
		err = a.raft.RemovePeer(r.Context(), body.ServerID)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	empty(w)
}

// snapshotWriter sets the header with the first byte, so that an error before it can still be answered.
type snapshotWriter struct {
	http.ResponseWriter
	began bool
}

func (w *snapshotWriter) Write(p []byte) (int, error) {
	if !w.began {
		w.began = true
		header(w.ResponseWriter, http.StatusOK)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", `attachment; filename="locum.snap"`)
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

func (a *active) raftSnapshot(w http.ResponseWriter, r *http.Request) {
	sw := &snapshotWriter{ResponseWriter: w}
	err := a.raft.Snapshot(r.Context(), sw)
	switch {
	case err == nil:
		return
	case !sw.began:
		a.fail(w, r, err)
	default:
		a.cfg.Logger.Error("api: snapshot broke off", "request_id", a.cfg.RequestInfo(r.Context()).ID, "error", err)
		panic(http.ErrAbortHandler) // net/http's way to break a connection off: half a snapshot must not look whole
	}
}

func (a *active) raftRestore(w http.ResponseWriter, r *http.Request)      { a.restore(w, r, false) }
func (a *active) raftRestoreForce(w http.ResponseWriter, r *http.Request) { a.restore(w, r, true) }

func (a *active) restore(w http.ResponseWriter, r *http.Request, force bool) {
	if r.Body == nil || r.ContentLength == 0 {
		a.fail(w, r, Errorf(http.StatusBadRequest, "the body is empty: send the snapshot as it was saved"))
		return
	}
	if err := a.raft.Restore(r.Context(), r.Body, force); err != nil {
		a.fail(w, r, err)
		return
	}
	empty(w)
}

func (a *active) raftChallenge(w http.ResponseWriter, r *http.Request) {
	a.bootstrap(w, r, a.raft.Challenge)
}

func (a *active) raftAnswer(w http.ResponseWriter, r *http.Request) {
	a.bootstrap(w, r, a.raft.Answer)
}

// bootstrap passes one round of the talk through. Who asks is a stranger yet.
func (a *active) bootstrap(w http.ResponseWriter, r *http.Request, round func(context.Context, json.RawMessage) (any, error)) {
	var said json.RawMessage
	err := a.decode(w, r, &said, false)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	answer, err := round(r.Context(), said)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.sys(w, r, answer)
}
