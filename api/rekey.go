package api

import (
	"context"
	"net/http"
)

// Rekey replaces the key shares, by a quorum of those in use. It has two rounds, as Vault's with require_verification: in
// the first the shares in use are given and new ones handed out; in the second the new ones are given back, and only then do they
// take the place of the old. So at no instant, whatever fails, are there only shares that nobody has. The attempt is the
// leadership's own: the next active node knows nothing of it, and the shares in use stay. *Error where it does not fit.
type Rekey interface {
	RekeyStatus(ctx context.Context) (RekeyStatus, error)
	BeginRekey(ctx context.Context, shares, threshold int) (RekeyStatus, error)
	CancelRekey(ctx context.Context) error

	// RekeyShare takes a share in use; with the last one it returns the new ones.
	RekeyShare(ctx context.Context, nonce string, share []byte) (RekeyStatus, [][]byte, error)

	// The second round. VerifyRekey reports true once the new shares are in force.
	RekeyVerification(ctx context.Context) (RekeyVerification, error)
	VerifyRekey(ctx context.Context, nonce string, share []byte) (RekeyVerification, bool, error)
	RestartRekeyVerification(ctx context.Context) (RekeyVerification, error)
}

// RekeyStatus is the answer of sys/rekey/init.
type RekeyStatus struct {
	Nonce                string   `json:"nonce"`
	Started              bool     `json:"started"`
	Threshold            int      `json:"t"`        // of the new shares
	Shares               int      `json:"n"`        // new ones
	Progress             int      `json:"progress"` // shares in use that were given
	Required             int      `json:"required"` // of those
	PGPFingerprints      []string `json:"pgp_fingerprints"`
	Backup               bool     `json:"backup"`
	VerificationRequired bool     `json:"verification_required"` // always
	VerificationNonce    string   `json:"verification_nonce,omitempty"`
}

// RekeyVerification is the answer of sys/rekey/verify.
type RekeyVerification struct {
	Nonce     string `json:"nonce"`
	Started   bool   `json:"started"`
	Threshold int    `json:"t"`
	Shares    int    `json:"n"`
	Progress  int    `json:"progress"` // new shares given back
}

// rekeyBase is where key shares are replaced. The shares are proof enough of who asks.
const rekeyBase = "/v1/sys/rekey/"

func (a *active) rekeyRoutes() {
	const class = "sys"
	a.routes[rekeyBase+"init"] = &route{class: class, open: true, on: get(a.rekeyStatus).
		with(both(a.beginRekey)).with(methods{http.MethodDelete: a.cancelRekey})}
	a.routes[rekeyBase+"update"] = &route{class: class, open: true, on: both(a.rekeyShare)}
	a.routes[rekeyBase+"verify"] = &route{class: class, open: true, on: get(a.rekeyVerification).
		with(both(a.verifyRekey)).with(methods{http.MethodDelete: a.restartVerification})}
}

// replyOr answers with v, or with the error.
func (a *active) replyOr(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.reply(w, http.StatusOK, v)
}

func (a *active) rekeyStatus(w http.ResponseWriter, r *http.Request) {
	st, err := a.service.RekeyStatus(r.Context())
	a.replyOr(w, r, st, err)
}

func (a *active) beginRekey(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Shares    number  `json:"secret_shares"`
		Threshold number  `json:"secret_threshold"`
		PGPKeys   names   `json:"pgp_keys"`
		Backup    boolean `json:"backup"`
	}
	err := a.decode(w, r, &body, false)
	var st RekeyStatus
	switch {
	case err != nil:
	case len(body.PGPKeys) > 0 || body.Backup.value:
		err = Errorf(http.StatusBadRequest, "PGP keys and their backup are not supported: leave pgp_keys and backup out")
	default:
		err = checkShares("secret_shares", "secret_threshold", body.Shares, body.Threshold, 1)
	}
	if err == nil {
		st, err = a.service.BeginRekey(r.Context(), int(body.Shares.value), int(body.Threshold.value))
	}
	a.replyOr(w, r, st, err)
}

func (a *active) cancelRekey(w http.ResponseWriter, r *http.Request) {
	a.replyDone(w, r, a.service.CancelRekey(r.Context()))
}

// decodeGiven reads a body that brings a share.
func (a *active) decodeGiven(w http.ResponseWriter, r *http.Request) (nonce string, share []byte, err error) {
	var body struct {
		Key   string `json:"key"`
		Nonce string `json:"nonce"`
	}
	if err = a.decode(w, r, &body, false); err != nil {
		return "", nil, err
	}
	if body.Key == "" {
		return "", nil, Errorf(http.StatusBadRequest, "'key' must be specified in request body as JSON")
	}
	share, err = decodeShare(body.Key)
	return body.Nonce, share, err
}

func (a *active) rekeyShare(w http.ResponseWriter, r *http.Request) {
	nonce, share, err := a.decodeGiven(w, r)
	var st RekeyStatus
	var shares [][]byte
	if err == nil {
		st, shares, err = a.service.RekeyShare(r.Context(), nonce, share)
	}
	if err != nil || shares == nil {
		a.replyOr(w, r, st, err)
		return
	}
	inHex, inBase64 := encodeShares(shares)
	a.reply(w, http.StatusOK, map[string]any{
		"nonce": st.Nonce, "complete": true, "keys": inHex, "keys_base64": inBase64, "pgp_fingerprints": nil, "backup": false,
		"verification_required": true, "verification_nonce": st.VerificationNonce,
	})
}

func (a *active) rekeyVerification(w http.ResponseWriter, r *http.Request) {
	v, err := a.service.RekeyVerification(r.Context())
	a.replyOr(w, r, v, err)
}

func (a *active) verifyRekey(w http.ResponseWriter, r *http.Request) {
	nonce, share, err := a.decodeGiven(w, r)
	var v RekeyVerification
	var done bool
	if err == nil {
		v, done, err = a.service.VerifyRekey(r.Context(), nonce, share)
	}
	if err != nil || !done {
		a.replyOr(w, r, v, err)
		return
	}
	a.reply(w, http.StatusOK, map[string]any{"nonce": v.Nonce, "complete": true})
}

func (a *active) restartVerification(w http.ResponseWriter, r *http.Request) {
	v, err := a.service.RestartRekeyVerification(r.Context())
	a.replyOr(w, r, v, err)
}
