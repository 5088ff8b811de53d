package api

import (
	"context"
	"net/http"
)

// Orders are what operators order for a while, for planned work. They outlive every restart.
type Orders interface {
	// Ordered is what is in force.
	Ordered(ctx context.Context) (Ordered, error)

	// Pause suspends automatic failover, or ends that: no other node takes over from the active one but in a step-down. It
	// returns when every connected node has confirmed, or after a few seconds.
	Pause(ctx context.Context, on bool) (Ordered, error)

	// Maintenance takes a node, by name or identity, out of the candidates and out of what load balancers send requests
	// to, or ends that. The active node hands over. Unless force is set, *Error with 400 if no other node could be active.
	Maintenance(ctx context.Context, node string, on, force bool) (Ordered, error)
}

// Ordered is the answer to every order.
type Ordered struct {
	Paused      bool     `json:"paused"`
	Maintenance []string `json:"maintenance"`           // names of nodes
	Unconfirmed []string `json:"unconfirmed,omitempty"` // connected nodes that have not confirmed within a few seconds
	HandsOver   bool     `json:"hands_over,omitempty"`  // the active node is the one, and steps down
}

const resumePath = "/v1/sys/resume"

func (a *active) orderRoutes() {
	const sys = "sys"
	a.routes["/v1/sys/pause"] = &route{class: sys, sudo: true, on: both(a.pause(true)).with(get(a.ordered))}
	a.routes[resumePath] = &route{class: sys, sudo: true, on: both(a.pause(false))}
	a.routes["/v1/sys/maintenance"] = &route{class: sys, sudo: true, on: both(a.maintenance).with(get(a.ordered))}
}

func (a *active) ordered(w http.ResponseWriter, r *http.Request) {
	done, err := a.service.Ordered(r.Context())
	a.orderAnswer(w, r, done, err)
}

func (a *active) orderAnswer(w http.ResponseWriter, r *http.Request, done Ordered, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if done.Maintenance == nil {
		done.Maintenance = []string{}
	}
	a.sys(w, r, done)
}

func (a *active) pause(on bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var none struct{}
		if err := a.decode(w, r, &none, true); err != nil {
			a.fail(w, r, err)
			return
		}
		done, err := a.service.Pause(r.Context(), on)
		a.orderAnswer(w, r, done, err)
	}
}

func (a *active) maintenance(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Node  string `json:"node"`
		Off   bool   `json:"off"`
		Force bool   `json:"force"`
	}
	err := a.decode(w, r, &body, false)
	if err == nil && body.Node == "" {
		err = Errorf(http.StatusBadRequest, `which node? write {"node":"NAME"}; GET /v1/sys/ha-status lists the nodes`)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	done, err := a.service.Maintenance(r.Context(), body.Node, !body.Off, body.Force)
	a.orderAnswer(w, r, done, err)
}

// resumed ends a pause while nobody is active who could be asked, on the node asked alone. False: next is to answer.
func (l *local) resumed(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), authorizeWithin)
	defer cancel()
	done, err := l.node.Resume(ctx, TokenOf(r), Access{Path: "sys/resume", Op: Update, Sudo: true})
	switch {
	case err != nil:
		l.deny(w, r, err)
	case done:
		l.sys(w, r, Ordered{Maintenance: []string{}})
	}
	return done || err != nil
}
