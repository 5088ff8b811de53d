package client

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
)

// RootGeneration is how far the making of a root token by a quorum of key shares is.
type RootGeneration struct {
	Nonce        string `json:"nonce"`
	Started      bool   `json:"started"`
	Progress     int    `json:"progress"` // shares given
	Required     int    `json:"required"`
	Complete     bool   `json:"complete"`
	EncodedToken string `json:"encoded_token"` // hidden with the one-time password: see DecodeToken
	OTP          string `json:"otp,omitempty"` // of the attempt just begun, once
	OTPLength    int    `json:"otp_length"`
}

// String hides the one-time password.
func (RootGeneration) String() string { return "***" }

// GoString hides the one-time password.
func (RootGeneration) GoString() string { return "***" }

const rootPath = "/sys/generate-root/attempt"

// RootGeneration tells how far the attempt is.
func (c *Client) RootGeneration(ctx context.Context) (RootGeneration, error) {
	var g RootGeneration
	_, err := c.Do(ctx, http.MethodGet, rootPath, nil, &g)
	return g, err
}

// BeginRootGeneration begins an attempt; without a one-time password the cluster makes one.
func (c *Client) BeginRootGeneration(ctx context.Context, otp Secret) (RootGeneration, error) {
	in := map[string]string{}
	if otp != "" {
		in["otp"] = string(otp)
	}
	var g RootGeneration
	_, err := c.Do(ctx, http.MethodPut, rootPath, in, &g)
	return g, err
}

// CancelRootGeneration ends the attempt.
func (c *Client) CancelRootGeneration(ctx context.Context) error {
	_, err := c.Do(ctx, http.MethodDelete, rootPath, nil, nil)
	return err
}

// GiveRootShare gives one share to the attempt of this nonce. With the last one the answer has the token, hidden.
func (c *Client) GiveRootShare(ctx context.Context, nonce string, share Secret) (RootGeneration, error) {
	var g RootGeneration
	_, err := c.Do(ctx, http.MethodPut, "/sys/generate-root/update", given(nonce, share), &g)
	return g, err
}

func given(nonce string, share Secret) map[string]string {
	return map[string]string{"nonce": nonce, "key": string(share)}
}

// DecodeToken is the token that was hidden with the one-time password.
func DecodeToken(encoded string, otp Secret) (Secret, error) {
	hidden, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return "", errors.New("this is no encoded token: copy it as it was printed")
	}
	if len(hidden) != len(otp) {
		return "", errors.New("this one-time password does not belong to this token: they have different lengths")
	}
	for i := range hidden {
		hidden[i] ^= otp[i]
	}
	return Secret(hidden), nil
}

// Rekey is how far the replacement of the key shares is: the first round, in which shares in use are given.
type Rekey struct {
	Nonce             string `json:"nonce"`
	Started           bool   `json:"started"`
	Threshold         int    `json:"t"` // of the new shares
	Shares            int    `json:"n"`
	Progress          int    `json:"progress"` // shares in use that were given
	Required          int    `json:"required"`
	VerificationNonce string `json:"verification_nonce,omitempty"` // the second round is under way
	Complete          bool   `json:"complete,omitempty"`           // the new shares are in KeysBase64

	Keys       []string `json:"keys,omitempty"`
	KeysBase64 []string `json:"keys_base64,omitempty"`
}

// String hides the shares.
func (Rekey) String() string { return "***" }

// GoString hides the shares.
func (Rekey) GoString() string { return "***" }

// RekeyVerification is the second round: the new shares are given back, and only then in force.
type RekeyVerification struct {
	Nonce     string `json:"nonce"`
	Started   bool   `json:"started"`
	Threshold int    `json:"t"`
	Shares    int    `json:"n"`
	Progress  int    `json:"progress"`
	Complete  bool   `json:"complete,omitempty"`
}

const rekeyPath = "/sys/rekey/init"

// Rekey tells how far the first round is.
func (c *Client) Rekey(ctx context.Context) (Rekey, error) {
	var r Rekey
	_, err := c.Do(ctx, http.MethodGet, rekeyPath, nil, &r)
	return r, err
}

// BeginRekey begins to replace the key shares.
func (c *Client) BeginRekey(ctx context.Context, shares, threshold int) (Rekey, error) {
	var r Rekey
	_, err := c.Do(ctx, http.MethodPut, rekeyPath, map[string]int{"secret_shares": shares, "secret_threshold": threshold}, &r)
	return r, err
}

// CancelRekey ends the attempt: the shares in use stay.
func (c *Client) CancelRekey(ctx context.Context) error {
	_, err := c.Do(ctx, http.MethodDelete, rekeyPath, nil, nil)
	return err
}

// GiveRekeyShare gives a share in use. With the last one the answer has the new ones.
func (c *Client) GiveRekeyShare(ctx context.Context, nonce string, share Secret) (Rekey, error) {
	var r Rekey
	_, err := c.Do(ctx, http.MethodPut, "/sys/rekey/update", given(nonce, share), &r)
	return r, err
}

// RekeyVerification tells how far the second round is.
func (c *Client) RekeyVerification(ctx context.Context) (RekeyVerification, error) {
	var v RekeyVerification
	_, err := c.Do(ctx, http.MethodGet, "/sys/rekey/verify", nil, &v)
	return v, err
}

// VerifyRekey gives a new share back.
func (c *Client) VerifyRekey(ctx context.Context, nonce string, share Secret) (RekeyVerification, error) {
	var v RekeyVerification
	_, err := c.Do(ctx, http.MethodPut, "/sys/rekey/verify", given(nonce, share), &v)
	return v, err
}
