package server

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/internal/join"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// An invitation is how "locum run" on a further machine gets the key of the static seal without anybody writing a file there: a
// secret of 32 bytes that stands in LOCUM_JOIN. It is not sent: both sides prove that they have it, as package join does with the
// root key, and the seal's key comes sealed for that talk. It opens nothing else, and can be replaced without touching the seal.

const (
	keyInvitation     = "core/invitation"
	invitationFormat  = 1
	invitationSecret  = 32 // bytes
	invitePath        = "/v1/sys/invitation"
	inviteChallenge   = "/v1/sys/internal/invitation/challenge"
	inviteAnswer      = "/v1/sys/internal/invitation/answer"
	invitationBody    = 16 << 10
	invitationPurpose = "locum invitation v1"
	invitationRetry   = 500 * time.Millisecond
)

// ErrInvitation: the secret is not the one in force; it was replaced, or belongs to another cluster.
var ErrInvitation = errors.New("the cluster does not know this invitation: it was replaced, or is another cluster's")

// errStoredInvitation: what is stored is no invitation of a format that this version knows. What to do is in the text, which is for clients.
var errStoredInvitation = errors.New("the stored invitation (" + keyInvitation + ")")

// storedInvitation is the secret in force.
type storedInvitation struct {
	Format int    `json:"format"`
	Secret []byte `json:"secret"`
}

// readInvitation returns the secret in force; [physical.ErrNotFound] if there is none.
func readInvitation(ctx context.Context, view *barrier.View) ([]byte, error) {
	e, err := view.Get(ctx, keyInvitation)
	if err != nil {
		return nil, err
	}
	return decodeInvitation(e.Value)
}

// decodeInvitation's errors are errStoredInvitation. They do not repeat what stands there: it is a secret.
func decodeInvitation(data []byte) ([]byte, error) {
	var s storedInvitation
	err := json.Unmarshal(data, &s)
	switch {
	case s.Format > invitationFormat: // whatever else it has
		return nil, fmt.Errorf("%w has format %d, of a newer version; this one knows %d: upgrade this node", errStoredInvitation, s.Format, invitationFormat)
	case err != nil || s.Format != invitationFormat || len(s.Secret) != invitationSecret:
		return nil, fmt.Errorf("%w cannot be read: replace it with locum run -new-invite", errStoredInvitation)
	}
	return s.Secret, nil
}

func writeInvitation(secret []byte) (physical.Op, error) {
	data, err := json.Marshal(storedInvitation{Format: invitationFormat, Secret: secret})
	return physical.Put(keyInvitation, data), err
}

func invitationKey(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, invitationPurpose, 32)
}

// inviting answers what belongs to invitations, where the seal is a static one in a file.
func (l *leading) inviting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		var err error
		switch {
		case l.node.cfg.Seal.Type != seal.TypeStatic:
			next.ServeHTTP(w, r)
			return
		case r.URL.Path == invitePath:
			answer, err = l.invitation(r)
		case r.URL.Path == inviteChallenge && r.Method == http.MethodPost:
			answer, err = l.challengeInvited(w, r)
		case r.URL.Path == inviteAnswer && r.Method == http.MethodPost:
			answer, err = l.answerInvited(w, r)
		default:
			next.ServeHTTP(w, r)
			return
		}
		var known *api.Error
		switch {
		case err == nil:
			answerJSON(w, http.StatusOK, answer)
		case errors.As(err, &known):
			if known.Status == http.StatusMethodNotAllowed {
				w.Header().Set("Allow", "GET, POST, PUT")
			}
			answerJSON(w, known.Status, map[string]any{"errors": []string{known.Message}})
		case errors.Is(err, auth.ErrDenied):
			answerJSON(w, http.StatusForbidden, map[string]any{"errors": []string{err.Error(),
				"a token with the power of root is needed: put it in the header X-Vault-Token, or Authorization: Bearer"}})
		case errors.Is(err, join.ErrProof):
			answerJSON(w, http.StatusForbidden, map[string]any{"errors": []string{
				"the proof does not fit: the invitation was replaced, or is another cluster's; take the one that locum run -invite shows"}})
		case errors.Is(err, join.ErrChallenge): // perhaps another node's, that was active until now
			answerJSON(w, http.StatusConflict, map[string]any{"errors": []string{err.Error()}})
		case errors.Is(err, physical.ErrNotFound):
			answerJSON(w, http.StatusNotFound, map[string]any{"errors": []string{"this cluster invites nobody: on one of its machines run locum run -invite"}})
		case errors.Is(err, errStoredInvitation):
			l.node.log.Error("invitation", "error", err)
			answerJSON(w, http.StatusInternalServerError, map[string]any{"errors": []string{err.Error()}, "processed": "no"})
		default:
			l.node.log.Error("invitation", "error", err)
			answerJSON(w, http.StatusServiceUnavailable, map[string]any{"errors": []string{"the invitation cannot be read or written now"}, "processed": "unknown"})
		}
	})
}

// invitation shows the secret in force, and makes one where there is none; a PUT or POST replaces it. It takes a token with the power
// of root.
func (l *leading) invitation(r *http.Request) (any, error) {
	access := auth.Access{Path: "sys/invitation", Op: auth.Read, Sudo: true}
	if r.Method != http.MethodGet {
		access.Op = auth.Update
	}
	if _, err := l.tokens.Authorize(r.Context(), auth.Secret(api.TokenOf(r)), access, auth.Request{}); err != nil {
		return nil, err
	}
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut:
	default: // a HEAD or OPTIONS that comes by chance must not replace the secret
		return nil, api.Errorf(http.StatusMethodNotAllowed, "method %s is not allowed here: use one of GET, POST, PUT", r.Method)
	}
	view := l.node.barrier.View(&l.term.Fence)
	if r.Method == http.MethodGet {
		secret, err := readInvitation(r.Context(), view)
		if err == nil {
			return map[string]any{"secret": base64.RawURLEncoding.EncodeToString(secret)}, nil
		}
		if !errors.Is(err, physical.ErrNotFound) {
			return nil, err
		}
	}
	secret := make([]byte, invitationSecret)
	rand.Read(secret) // never fails
	op, err := writeInvitation(secret)
	if err != nil {
		return nil, err
	}
	if err := view.Commit(r.Context(), op); err != nil {
		return nil, err
	}
	return map[string]any{"secret": base64.RawURLEncoding.EncodeToString(secret)}, nil
}

func (l *leading) challengeInvited(w http.ResponseWriter, r *http.Request) (any, error) {
	var asked join.Request
	if err := readBody(w, r, &asked); err != nil {
		return nil, err
	}
	if _, err := readInvitation(r.Context(), l.node.barrier.View(&l.term.Fence)); err != nil {
		return nil, err
	}
	c, err := l.node.inviteDoor.Challenge(asked, nil, nil)
	if err != nil {
		return nil, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	return c, nil
}

// answerInvited gives the seal's key to who has proved the secret.
func (l *leading) answerInvited(w http.ResponseWriter, r *http.Request) (any, error) {
	var a join.Answer
	if err := readBody(w, r, &a); err != nil {
		return nil, err
	}
	secret, err := readInvitation(r.Context(), l.node.barrier.View(&l.term.Fence))
	if err != nil {
		return nil, err
	}
	key, err := invitationKey(secret)
	if err != nil {
		return nil, err
	}
	if err := l.node.inviteDoor.Verify(key, a); err != nil {
		l.node.log.Warn("an invitation was refused", "node", a.Request.Name, "error", err)
		if !errors.Is(err, join.ErrProof) && !errors.Is(err, join.ErrChallenge) {
			return nil, api.Errorf(http.StatusBadRequest, "%v", err)
		}
		return nil, err
	}
	sealKey, err := l.node.sealKey()
	if err != nil {
		return nil, err
	}
	defer sealKey.Wipe()
	l.node.log.Info("invitation accepted", "node", a.Request.Name)
	return join.NewWelcome(key, a, sealKey[:])
}

// sealKey reads the static seal's key.
func (s *Server) sealKey() (seal.Key, error) {
	if s.cfg.Seal.Static.KeyEnv != "" {
		return seal.ReadKeyEnv(s.cfg.Seal.Static.KeyEnv)
	}
	return seal.ReadKeyFile(s.cfg.Seal.Static.KeyFile)
}

// readBody reads what a newcomer sends. Its error is one for the client.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, invitationBody))
	if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
		return api.Errorf(http.StatusRequestEntityTooLarge, "the body is larger than the limit of %d bytes: send less at once", tooBig.Limit)
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil { // what was sent is not repeated
		return api.Errorf(http.StatusBadRequest, "the body is not the JSON of a node that was invited: start it with locum run and LOCUM_JOIN")
	}
	return nil
}

// Accept turns an invitation into the seal's key: it asks the nodes at these addresses (URLs of their APIs) in turn until one answers.
// The error is [ErrInvitation] where the cluster does not know the secret.
func Accept(ctx context.Context, addresses []string, secret []byte, node string) (seal.Key, error) {
	key, err := invitationKey(secret)
	if err != nil {
		return seal.Key{}, err
	}
	for i := 0; ; i++ {
		address := addresses[i%len(addresses)]
		sealKey, err := accept(ctx, address, key, node)
		if err == nil || errors.Is(err, ErrInvitation) {
			return sealKey, err
		}
		if i%len(addresses) < len(addresses)-1 {
			continue
		}
		if !pauseFor(ctx, invitationRetry) {
			return seal.Key{}, fmt.Errorf("%s: %w", address, err)
		}
	}
}

func accept(ctx context.Context, address string, key []byte, node string) (seal.Key, error) {
	target, err := newJoinTarget(api.JoinRequest{LeaderAPIAddr: address})
	if err != nil {
		return seal.Key{}, err
	}
	request := join.NewRequest(node, node, "none") // it is not reached, but for the answer
	var challenge join.Challenge
	if err := target.post(ctx, inviteChallenge, request, &challenge); err != nil {
		return seal.Key{}, err
	}
	answer, err := join.NewAnswer(key, request, challenge)
	if err != nil {
		return seal.Key{}, err
	}
	var welcome join.Welcome
	if err := target.post(ctx, inviteAnswer, answer, &welcome); err != nil {
		if refused := (forbidden{}); errors.As(err, &refused) {
			return seal.Key{}, ErrInvitation
		}
		return seal.Key{}, err
	}
	sealKey, err := answer.Open(key, welcome)
	if err != nil {
		return seal.Key{}, ErrInvitation
	}
	return seal.ParseKey(sealKey)
}
