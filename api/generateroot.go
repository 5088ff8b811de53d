package api

import (
	"net/http"
)

// RootGeneration is the state of an attempt to make a root token by a quorum of key shares: the answer of
// sys/generate-root/attempt and update. It holds no token in clear: who has the one-time password decodes it.
type RootGeneration struct {
	Nonce            string `json:"nonce"`
	Started          bool   `json:"started"`
	Progress         int    `json:"progress"` // shares given
	Required         int    `json:"required"` // shares needed
	Complete         bool   `json:"complete"`
	EncodedToken     string `json:"encoded_token"`      // base64 of the token XOR the one-time password
	EncodedRootToken string `json:"encoded_root_token"` // an older name
	PGPFingerprint   string `json:"pgp_fingerprint"`
	OTP              string `json:"otp,omitempty"`
	OTPLength        int    `json:"otp_length"`
}

// generateRootBase is where root tokens are made. Who has no token must be able to ask, and the shares are proof enough.
const generateRootBase = "/v1/sys/generate-root/"

func (a *active) generateRootRoutes() {
	const class = "sys"
	a.routes[generateRootBase+"attempt"] = &route{class: class, open: true, on: get(a.rootGeneration).
		with(both(a.beginRootGeneration)).with(methods{http.MethodDelete: a.cancelRootGeneration})}
	a.routes[generateRootBase+"update"] = &route{class: class, open: true, on: both(a.rootShare)}
}

func (a *active) replyRootGeneration(w http.ResponseWriter, r *http.Request, g RootGeneration, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	g.EncodedRootToken = g.EncodedToken
	a.reply(w, http.StatusOK, g)
}

func (a *active) rootGeneration(w http.ResponseWriter, r *http.Request) {
	g, err := a.service.RootGeneration(r.Context())
	a.replyRootGeneration(w, r, g, err)
}

func (a *active) beginRootGeneration(w http.ResponseWriter, r *http.Request) {
	var body struct {
		OTP    string `json:"otp"`
		PGPKey string `json:"pgp_key"`
	}
	err := a.decode(w, r, &body, true)
	if err == nil && body.PGPKey != "" {
		err = Errorf(http.StatusBadRequest, "PGP keys are not supported: leave pgp_key out, and the token is hidden with a one-time password")
	}
	var g RootGeneration
	if err == nil {
		g, err = a.service.BeginRootGeneration(r.Context(), body.OTP)
	}
	a.replyRootGeneration(w, r, g, err)
}

func (a *active) cancelRootGeneration(w http.ResponseWriter, r *http.Request) {
	a.replyDone(w, r, a.service.CancelRootGeneration(r.Context()))
}

func (a *active) rootShare(w http.ResponseWriter, r *http.Request) {
	nonce, share, err := a.decodeGiven(w, r)
	var g RootGeneration
	if err == nil {
		g, err = a.service.RootShare(r.Context(), nonce, share)
	}
	a.replyRootGeneration(w, r, g, err)
}
