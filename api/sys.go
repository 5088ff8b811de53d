package api

import (
	"encoding/json"
	"net/http"
	"time"
)

func (a *active) sysRoutes() {
	const sys = "sys"
	a.routes["/v1/sys/seal"] = &route{class: sys, sudo: true, on: both(a.seal)}
	a.routes["/v1/sys/step-down"] = &route{class: sys, sudo: true, on: both(a.stepDown)}
	a.routes["/v1/sys/ha-status"] = &route{class: sys, on: get(a.haStatus)}
	a.routes["/v1/sys/history"] = &route{class: sys, on: get(a.history)}
	a.routes["/v1/sys/key-status"] = &route{class: sys, on: get(a.keyStatus)}
	rotate := &route{class: sys, sudo: true, on: both(a.rotate)}
	a.routes["/v1/sys/rotate"] = rotate
	a.routes["/v1/sys/rotate/keyring"] = &route{class: sys, sudo: true, on: both(a.rotate)}
	a.orderRoutes()
}

func (a *active) seal(w http.ResponseWriter, r *http.Request) {
	if err := a.service.Seal(r.Context()); err != nil {
		a.fail(w, r, err)
		return
	}
	empty(w)
}

type stepDownRequest struct {
	To   string   `json:"to"`
	Wait duration `json:"wait"`
}

// StepDownWait returns for how long the body of a step-down request asks to wait for the next active node. It is 0 also where the
// body cannot be read: the active node refuses it then.
func StepDownWait(body []byte) time.Duration {
	var r stepDownRequest
	if json.Unmarshal(body, &r) != nil {
		return 0
	}
	return r.Wait.value
}

func (a *active) stepDown(w http.ResponseWriter, r *http.Request) {
	var body stepDownRequest
	err := a.decode(w, r, &body, true)
	if err == nil && body.Wait.value < 0 {
		err = Errorf(http.StatusBadRequest, "wait must not be negative")
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if err := a.service.StepDown(r.Context(), body.To); err != nil {
		a.fail(w, r, err)
		return
	}
	empty(w)
}

func (a *active) haStatus(w http.ResponseWriter, r *http.Request) {
	nodes, err := a.service.Members(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if nodes == nil {
		nodes = []Member{}
	}
	orders, err := a.service.Ordered(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.sys(w, r, map[string]any{"nodes": nodes, "paused": orders.Paused})
}

func (a *active) history(w http.ResponseWriter, r *http.Request) {
	leaderships, err := a.service.History(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if leaderships == nil {
		leaderships = []Leadership{}
	}
	a.sys(w, r, map[string]any{"leaderships": leaderships})
}

func (a *active) keyStatus(w http.ResponseWriter, r *http.Request) {
	status, err := a.service.KeyStatus(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.sys(w, r, status)
}

func (a *active) rotate(w http.ResponseWriter, r *http.Request) {
	if err := a.service.Rotate(r.Context()); err != nil {
		a.fail(w, r, err)
		return
	}
	empty(w)
}
