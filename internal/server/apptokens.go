package server

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/forward"
)

// What an application's token is good for: its own place among the entries, its own locks, its own cache. %s is its name.
const applicationPolicy = `# Written by Locum when it starts the application; what is changed here is replaced then.
path "secret/data/applications/%[1]s/*"     { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "secret/metadata/applications/%[1]s"   { capabilities = ["list"] }
path "secret/metadata/applications/%[1]s/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "secret/delete/applications/%[1]s/*"   { capabilities = ["create", "update"] }
path "secret/undelete/applications/%[1]s/*" { capabilities = ["create", "update"] }
path "secret/destroy/applications/%[1]s/*"  { capabilities = ["create", "update"] }
path "locks/applications/%[1]s/*"           { capabilities = ["create", "read", "update", "delete", "list"] }
path "cache/%[1]s"                          { capabilities = ["create", "read", "update", "delete", "list"] }
path "cache/%[1]s/*"                        { capabilities = ["create", "read", "update", "delete", "list"] }
`

const (
	applicationTokenPath    = "/v1/sys/internal/application-token"
	applicationTokenPurpose = "locum application token v1"
	applicationTokenPeriod  = 72 * time.Hour // that it lives after its last renewal: it outlasts any outage worth the name
	applicationTokenRenew   = 8 * time.Hour
	applicationTokenBody    = 4 << 10
)

// applicationTokens mints and revokes what applications show to the API (LOCUM_TOKEN): on the active node at once, on a standby by
// asking that one.
type applicationTokens unsealed

// applicationRequest asks for a token, proved by a key that only unsealed nodes have.
type applicationRequest struct {
	Application string `json:"application"`
	Node        string `json:"node"`
	Nonce       []byte `json:"nonce"`
	Proof       []byte `json:"proof"`
}

func (r *applicationRequest) prove(key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%d %s %d %s ", len(r.Application), r.Application, len(r.Node), r.Node)
	mac.Write(r.Nonce)
	return mac.Sum(nil)
}

// Mint makes a token for one start of an application.
func (t *applicationTokens) Mint(ctx context.Context, application string) (string, error) {
	u := (*unsealed)(t)
	if l := u.leading.Load(); l != nil && l.minting.Load() {
		return l.mintFor(ctx, application, u.cfg.NodeName)
	}
	key, err := u.barrier.DeriveKey(applicationTokenPurpose)
	if err != nil {
		return "", err
	}
	r := applicationRequest{Application: application, Node: u.cfg.NodeName, Nonce: make([]byte, 16)}
	rand.Read(r.Nonce) // never fails
	r.Proof = r.prove(key)
	body, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	answer, err := u.askActive(ctx, http.MethodPost, applicationTokenPath, "", body)
	if err != nil {
		return "", err
	}
	var made struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(answer, &made); err != nil || made.Token == "" {
		return "", errors.New("the active node's answer has no token")
	}
	return made.Token, nil
}

// Revoke ends it.
func (t *applicationTokens) Revoke(ctx context.Context, _ string, secret string) error {
	u := (*unsealed)(t)
	if l := u.leading.Load(); l != nil && l.minting.Load() && l.term.Lease.Valid() {
		return l.tokens.Revoke(ctx, auth.Secret(secret), auth.Request{})
	}
	_, err := u.askActive(ctx, http.MethodPost, "/v1/auth/token/revoke-self", secret, nil)
	return err
}

// Renew keeps it alive.
func (t *applicationTokens) Renew(ctx context.Context, _ string, secret string) error {
	_, err := (*unsealed)(t).askActive(ctx, http.MethodPost, "/v1/auth/token/renew-self", secret, []byte("{}"))
	return err
}

// RenewEvery is how often that is to be done.
func (t *applicationTokens) RenewEvery() time.Duration { return applicationTokenRenew }

// askActive sends a request of this node's own the way that clients' requests go.
func (s *Server) askActive(ctx context.Context, method, path, token string, body []byte) ([]byte, error) {
	ctx = forward.WithPolicy(ctx, forward.Policy{NoRedirect: true, Repeat: true}) // twice made, one token runs out unused
	r, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.RequestURI, r.RemoteAddr, r.Host = path, "127.0.0.1:0", "localhost"
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("X-Vault-Token", token)
	}
	rec := newRecorder()
	s.router.ServeHTTP(rec, r)
	if rec.code < 200 || rec.code > 299 {
		return nil, fmt.Errorf("the active node answered %d: %s", rec.code, strings.TrimSpace(rec.body.String()))
	}
	return rec.body.Bytes(), nil
}

// mintFor makes the token, and first the policy that says what it is good for.
func (l *leading) mintFor(ctx context.Context, application, node string) (string, error) {
	name, text := "application-"+strings.ToLower(application), fmt.Sprintf(applicationPolicy, application)
	if _, stored, err := l.tokens.Policy(ctx, name); errors.Is(err, auth.ErrNoPolicy) || err == nil && stored != text {
		if err := l.tokens.SetPolicy(ctx, name, text, auth.Request{}); err != nil {
			return "", fmt.Errorf("policy %q: %w", name, err)
		}
	} else if err != nil {
		return "", fmt.Errorf("policy %q: %w", name, err)
	}
	made, err := l.tokens.Mint(ctx, auth.Creation{
		Path: "auth/token/create", Policies: []string{name}, DisplayName: "application " + application + " on " + node,
		Meta: map[string]string{"application": application, "node": node}, Period: applicationTokenPeriod,
	})
	if err != nil {
		return "", err
	}
	return made.Secret.Reveal(), nil
}

// mintingForOthers answers standbys that start a warm application.
func (l *leading) mintingForOthers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != applicationTokenPath {
			next.ServeHTTP(w, r)
			return
		}
		var asked applicationRequest
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, applicationTokenBody))
		if err == nil {
			err = json.Unmarshal(data, &asked)
		}
		key, kerr := l.node.barrier.DeriveKey(applicationTokenPurpose)
		if r.Method != http.MethodPost || err != nil || kerr != nil || len(asked.Nonce) < 16 || !hmac.Equal(asked.Proof, asked.prove(key)) {
			answerJSON(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied",
				"only nodes of this cluster are given tokens here: make one with locum token create"}})
			return
		}
		token, err := l.mintFor(r.Context(), asked.Application, asked.Node)
		if err != nil {
			l.node.log.Error("no token for an application", "application", asked.Application, "node", asked.Node, "error", err)
			answerJSON(w, http.StatusServiceUnavailable, map[string]any{"errors": []string{"no token was made"}, "processed": "unknown"})
			return
		}
		answerJSON(w, http.StatusOK, map[string]any{"token": token})
	})
}
