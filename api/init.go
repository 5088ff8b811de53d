package api

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
)

// maxShares is the number of points that a byte-wise Shamir polynomial has, without zero.
const maxShares = 255

func (l *local) initialized(w http.ResponseWriter, _ *http.Request) {
	l.reply(w, http.StatusOK, map[string]bool{"initialized": l.node.Status().Initialized})
}

type initBody struct {
	Shares            number            `json:"secret_shares"`
	Threshold         number            `json:"secret_threshold"`
	RecoveryShares    number            `json:"recovery_shares"`
	RecoveryThreshold number            `json:"recovery_threshold"`
	StoredShares      number            `json:"stored_shares"`
	PGPKeys           []json.RawMessage `json:"pgp_keys"`
	RecoveryPGPKeys   []json.RawMessage `json:"recovery_pgp_keys"`
	RootTokenPGPKey   string            `json:"root_token_pgp_key"`
}

// initAnswer is Vault's: each share twice.
type initAnswer struct {
	Keys            []string `json:"keys"`
	KeysB64         []string `json:"keys_base64"`
	RecoveryKeys    []string `json:"recovery_keys,omitempty"`
	RecoveryKeysB64 []string `json:"recovery_keys_base64,omitempty"`
	RootToken       string   `json:"root_token"`
}

func (l *local) init(w http.ResponseWriter, r *http.Request) {
	st := l.node.Status()
	var body initBody
	err := l.decode(w, r, &body, true)
	if err == nil {
		err = body.check(st)
	}
	if err != nil {
		l.fail(w, r, err)
		return
	}
	resp, err := l.node.Init(r.Context(), InitRequest{
		Shares: int(body.Shares.value), Threshold: int(body.Threshold.value),
		RecoveryShares: int(body.RecoveryShares.value), RecoveryThreshold: int(body.RecoveryThreshold.value),
	})
	if err != nil {
		l.fail(w, r, err)
		return
	}
	answer := initAnswer{RootToken: resp.RootToken}
	answer.Keys, answer.KeysB64 = encodeShares(resp.Keys)
	answer.RecoveryKeys, answer.RecoveryKeysB64 = encodeShares(resp.RecoveryKeys)
	l.reply(w, http.StatusOK, answer)
}

// check refuses what cannot be done, rather than to hand out secrets in a way that was not asked for.
func (b initBody) check(st Status) error {
	switch {
	case st.Initialized:
		return Errorf(http.StatusBadRequest, "the cluster is already initialised: unseal this node with the keys that were given out then")
	case len(b.PGPKeys) > 0 || len(b.RecoveryPGPKeys) > 0 || b.RootTokenPGPKey != "":
		return Errorf(http.StatusBadRequest, "PGP keys are not supported: leave pgp_keys, recovery_pgp_keys and root_token_pgp_key out, and encrypt the keys that you are given yourself")
	}
	if st.Seal.Type != "shamir" {
		return checkShares("recovery_shares", "recovery_threshold", b.RecoveryShares, b.RecoveryThreshold, 0)
	}
	return checkShares("secret_shares", "secret_threshold", b.Shares, b.Threshold, 1)
}

func checkShares(sharesName, thresholdName string, shares, threshold number, least int64) error {
	n, t := shares.value, threshold.value
	switch {
	case n < least || n > maxShares:
		return Errorf(http.StatusBadRequest, "%s must be from %d to %d, not %d", sharesName, least, maxShares, n)
	case t < least || t > n:
		return Errorf(http.StatusBadRequest, "%s must be from %d to %s (%d), not %d", thresholdName, least, sharesName, n, t)
	case n > 1 && t == 1:
		return Errorf(http.StatusBadRequest, "%s must be at least 2 where there is more than one share: with 1, each share is the whole key", thresholdName)
	}
	return nil
}

func encodeShares(shares [][]byte) (inHex, inBase64 []string) {
	inHex, inBase64 = []string{}, []string{}
	for _, share := range shares {
		inHex = append(inHex, hex.EncodeToString(share))
		inBase64 = append(inBase64, base64.StdEncoding.EncodeToString(share))
	}
	return inHex, inBase64
}

func (l *local) unseal(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Key     string  `json:"key"`
		Reset   boolean `json:"reset"`
		Migrate boolean `json:"migrate"`
	}
	if err := l.decode(w, r, &body, false); err != nil {
		l.fail(w, r, err)
		return
	}
	var err error
	st := l.node.Status()
	if again, ok := l.node.(looker); ok && !st.Initialized {
		again.LookAgain(r.Context())
		st = l.node.Status()
	}
	switch {
	case !st.Initialized:
		err = sealedAnswer(false)
		err.(*Error).Status = http.StatusBadRequest
	case body.Migrate.value:
		err = Errorf(http.StatusBadRequest, "a seal is not migrated by unsealing: leave migrate out")
	case body.Reset.value:
		err = l.node.ResetUnseal(r.Context())
	case body.Key == "":
		err = Errorf(http.StatusBadRequest, "'key' must be specified in request body as JSON, or 'reset' set to true")
	default:
		var share []byte
		if share, err = decodeShare(body.Key); err == nil {
			err = l.node.Unseal(r.Context(), share)
		}
	}
	if err != nil {
		l.fail(w, r, err)
		return
	}
	l.sealStatus(w, r)
}

// looker is a Node whose cluster another one can have initialised without its knowledge.
type looker interface {
	// LookAgain has Status say whether that is so.
	LookAgain(ctx context.Context)
}

// decodeShare takes hex or base64, as Vault does. What was sent is never repeated in the error.
func decodeShare(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if share, err := hex.DecodeString(text); err == nil {
		return share, nil
	}
	if share, err := base64.StdEncoding.DecodeString(text); err == nil {
		return share, nil
	}
	return nil, Errorf(http.StatusBadRequest, "'key' must be a valid hex or base64 string: copy one of the keys that init printed")
}

func (l *local) join(w http.ResponseWriter, r *http.Request) {
	var body struct {
		JoinRequest
		AutoJoin string `json:"auto_join"`
	}
	err := l.decode(w, r, &body, false)
	switch {
	case err != nil:
	case body.AutoJoin != "":
		err = Errorf(http.StatusBadRequest, "auto_join is not supported: name a node of the cluster in leader_api_addr")
	case body.LeaderAPIAddr == "":
		err = Errorf(http.StatusBadRequest, "leader_api_addr is missing: name the API address of any node of the cluster, such as \"https://a.example.com:8400\"")
	case !strings.HasPrefix(body.LeaderAPIAddr, "http://") && !strings.HasPrefix(body.LeaderAPIAddr, "https://"):
		err = Errorf(http.StatusBadRequest, "leader_api_addr %q has no scheme: write http:// or https:// before it", body.LeaderAPIAddr)
	default:
		err = l.node.Join(r.Context(), body.JoinRequest)
	}
	if err != nil {
		l.fail(w, r, err)
		return
	}
	l.reply(w, http.StatusOK, map[string]bool{"joined": true})
}
