package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/locum-ha/locum/auth"
)

// Tokens keeps tokens and policies. [auth.Store] is one; its comments say what the methods and their errors mean.
type Tokens interface {
	Create(ctx context.Context, bearer auth.Secret, in auth.Creation, req auth.Request) (*auth.Created, error)
	Lookup(ctx context.Context, secret auth.Secret) (*auth.Token, error)
	LookupAccessor(ctx context.Context, accessor string) (*auth.Token, error)
	Renew(ctx context.Context, secret auth.Secret, increment time.Duration, req auth.Request) (*auth.Renewed, error)
	RenewAccessor(ctx context.Context, accessor string, increment time.Duration, req auth.Request) (*auth.Renewed, error)
	Revoke(ctx context.Context, secret auth.Secret, req auth.Request) error
	RevokeAccessor(ctx context.Context, accessor string, req auth.Request) error
	RevokeOrphan(ctx context.Context, secret auth.Secret, req auth.Request) error
	Accessors(ctx context.Context) ([]string, error)
	Policy(ctx context.Context, name string) (stored, text string, err error)
	SetPolicy(ctx context.Context, name, text string, req auth.Request) error
	DeletePolicy(ctx context.Context, name string, req auth.Request) error
	Policies(ctx context.Context) ([]string, error)
	Capabilities(ctx context.Context, t *auth.Token, path string) ([]string, error)
}

// tokenBase is where the paths of tokens begin.
const tokenBase = "/v1/auth/token/"

func (a *active) tokenRoutes() {
	const class = "auth"
	add := func(name string, on methods) *route {
		rt := &route{class: class, on: on}
		a.routes[tokenBase+name] = rt
		return rt
	}
	add("create", both(a.createToken("auth/token/create", false)))
	add("create-orphan", both(a.createToken("auth/token/create-orphan", true)))
	add("lookup", both(a.lookupToken)).self = true
	add("lookup-self", get(a.lookupSelf).with(both(a.lookupSelf))).self = true
	add("lookup-accessor", both(a.lookupAccessor))
	add("renew", both(a.renewToken))
	add("renew-self", both(a.renewSelf))
	add("renew-accessor", both(a.renewAccessor))
	add("revoke", both(a.revokeToken))
	add("revoke-self", both(a.revokeSelf))
	add("revoke-accessor", both(a.revokeAccessor))
	add("revoke-orphan", both(a.revokeOrphan)).sudo = true
	for _, name := range []string{"accessors", "accessors/"} {
		add(name, methods{methodList: a.listAccessors}).sudo = true
	}
}

// bearer is the request's own token.
func bearer(r *http.Request) auth.Secret { return auth.Secret(TokenOf(r)) }

// authBody is what an answer says of a token that was made or renewed.
type authBody struct {
	ClientToken    string            `json:"client_token"`
	Accessor       string            `json:"accessor"`
	Policies       []string          `json:"policies"`
	TokenPolicies  []string          `json:"token_policies"`
	Metadata       map[string]string `json:"metadata"`
	LeaseDuration  int64             `json:"lease_duration"` // seconds
	Renewable      bool              `json:"renewable"`
	EntityID       string            `json:"entity_id"`
	TokenType      string            `json:"token_type"`
	Orphan         bool              `json:"orphan"`
	MFARequirement any               `json:"mfa_requirement"`
	NumUses        int               `json:"num_uses"`
}

// replyAuth answers with a token. The secret is left out where the one who asks knows the accessor alone.
func (a *active) replyAuth(w http.ResponseWriter, r *http.Request, secret auth.Secret, t *auth.Token, warnings []string) {
	a.reply(w, http.StatusOK, envelope{
		RequestID: a.cfg.RequestInfo(r.Context()).ID, Warnings: warnings,
		Auth: authBody{
			ClientToken: secret.Reveal(), Accessor: t.Accessor, Policies: t.Policies, TokenPolicies: t.Policies,
			Metadata: t.Meta, LeaseDuration: seconds(t.Remaining(a.cfg.Now())), Renewable: t.Renewable,
			TokenType: "service", Orphan: t.Orphan(), NumUses: max(0, t.NumUses),
		},
	})
}

// seconds rounds up, so that what still lives has some left.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

type createBody struct {
	ID              string   `json:"id"`
	Policies        names    `json:"policies"`
	Meta            pairs    `json:"meta"`
	Metadata        pairs    `json:"metadata"`
	NoParent        boolean  `json:"no_parent"`
	NoDefaultPolicy boolean  `json:"no_default_policy"`
	Renewable       boolean  `json:"renewable"`
	TTL             duration `json:"ttl"`
	Lease           duration `json:"lease"` // an older name of ttl
	ExplicitMaxTTL  duration `json:"explicit_max_ttl"`
	Period          duration `json:"period"`
	DisplayName     string   `json:"display_name"`
	NumUses         number   `json:"num_uses"`
	Type            string   `json:"type"`
	EntityAlias     string   `json:"entity_alias"`
}

// creation gives what the body asks for.
func (b createBody) creation() (auth.Creation, error) {
	switch b.Type {
	case "", "service", "default", "default-service":
	default:
		return auth.Creation{}, Errorf(http.StatusBadRequest, "tokens of type %q are not supported: leave \"type\" out, or make it \"service\"", b.Type)
	}
	if b.EntityAlias != "" {
		return auth.Creation{}, Errorf(http.StatusBadRequest, "entities are not supported: leave \"entity_alias\" out")
	}
	in := auth.Creation{
		ID: auth.Secret(b.ID), Policies: b.Policies, Meta: b.Meta, NoParent: b.NoParent.value,
		NoDefaultPolicy: b.NoDefaultPolicy.value, TTL: b.TTL.value, ExplicitMaxTTL: b.ExplicitMaxTTL.value,
		Period: b.Period.value, DisplayName: b.DisplayName, NumUses: int(b.NumUses.value),
	}
	if in.Meta == nil {
		in.Meta = b.Metadata
	}
	if !b.TTL.set {
		in.TTL = b.Lease.value
	}
	if b.Renewable.set {
		in.Renewable = &b.Renewable.value
	}
	return in, nil
}

func (a *active) createToken(path string, orphan bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body createBody
		err := a.decode(w, r, &body, true)
		var in auth.Creation
		if err == nil {
			in, err = body.creation()
		}
		var made *auth.Created
		if err == nil {
			in.Path, in.Orphan = path, orphan
			made, err = a.tokens.Create(r.Context(), bearer(r), in, a.writer(r))
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		a.replyAuth(w, r, made.Secret, made.Token, made.Warnings)
	}
}

// tokenBody names a token.
type tokenBody struct {
	Token     string   `json:"token"`
	Accessor  string   `json:"accessor"`
	Increment duration `json:"increment"`
}

// decodeToken reads the body of a request about a token.
func (a *active) decodeToken(w http.ResponseWriter, r *http.Request, needToken, needAccessor bool) (tokenBody, error) {
	var body tokenBody
	err := a.decode(w, r, &body, true)
	switch {
	case err != nil:
	case needToken && body.Token == "":
		err = Errorf(http.StatusBadRequest, "missing token ID: put the token into the field \"token\" of the body")
	case needAccessor && body.Accessor == "":
		err = Errorf(http.StatusBadRequest, "missing accessor: put it into the field \"accessor\" of the body")
	}
	return body, err
}

// tokenData is what a lookup shows.
type tokenData struct {
	Accessor        string            `json:"accessor"`
	CreationTime    int64             `json:"creation_time"`
	CreationTTL     int64             `json:"creation_ttl"`
	DisplayName     string            `json:"display_name"`
	EntityID        string            `json:"entity_id"`
	ExpireTime      *time.Time        `json:"expire_time"`
	ExplicitMaxTTL  int64             `json:"explicit_max_ttl"`
	ID              string            `json:"id"`
	IssueTime       *time.Time        `json:"issue_time,omitempty"`
	LastRenewal     *time.Time        `json:"last_renewal,omitempty"`
	LastRenewalTime int64             `json:"last_renewal_time,omitempty"`
	Meta            map[string]string `json:"meta"`
	NumUses         int               `json:"num_uses"`
	Orphan          bool              `json:"orphan"`
	Path            string            `json:"path"`
	Period          int64             `json:"period,omitempty"`
	Policies        []string          `json:"policies"`
	Renewable       *bool             `json:"renewable,omitempty"`
	TTL             int64             `json:"ttl"`
	Type            string            `json:"type"`
}

func (a *active) replyToken(w http.ResponseWriter, r *http.Request, secret auth.Secret, t *auth.Token, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	d := tokenData{
		Accessor: t.Accessor, CreationTime: t.CreationTime.Unix(), CreationTTL: seconds(t.TTL), DisplayName: t.DisplayName,
		ExplicitMaxTTL: seconds(t.ExplicitMaxTTL), ID: secret.Reveal(), Meta: t.Meta, NumUses: t.NumUses, Orphan: t.Orphan(),
		Path: t.Path, Period: seconds(t.Period), Policies: t.Policies, TTL: seconds(t.Remaining(a.cfg.Now())), Type: "service",
	}
	if !t.ExpireTime.IsZero() {
		d.ExpireTime, d.IssueTime, d.Renewable = &t.ExpireTime, &t.CreationTime, &t.Renewable
	}
	if !t.LastRenewal.IsZero() {
		d.LastRenewal, d.LastRenewalTime = &t.LastRenewal, t.LastRenewal.Unix()
	}
	a.secret(w, r, http.StatusOK, d)
}

func (a *active) lookupSelf(w http.ResponseWriter, r *http.Request) {
	a.replyToken(w, r, bearer(r), bearerOf(r), nil)
}

func (a *active) lookupToken(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, false, false)
	if err == nil && body.Token == "" {
		a.lookupSelf(w, r)
		return
	}
	var t *auth.Token
	if err == nil {
		t, err = a.tokens.Lookup(r.Context(), auth.Secret(body.Token))
	}
	a.replyToken(w, r, auth.Secret(body.Token), t, err)
}

func (a *active) lookupAccessor(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, false, true)
	var t *auth.Token
	if err == nil {
		t, err = a.tokens.LookupAccessor(r.Context(), body.Accessor)
	}
	a.replyToken(w, r, "", t, err)
}

func (a *active) replyRenewed(w http.ResponseWriter, r *http.Request, secret auth.Secret, renewed *auth.Renewed, err error) {
	switch {
	case errors.Is(err, auth.ErrNoToken):
		a.fail(w, r, Errorf(http.StatusBadRequest, "token not found"))
	case err != nil:
		a.fail(w, r, err)
	default:
		a.replyAuth(w, r, secret, renewed.Token, renewed.Warnings)
	}
}

func (a *active) renewToken(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, true, false)
	a.renew(w, r, auth.Secret(body.Token), body.Increment.value, err)
}

func (a *active) renewSelf(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, false, false)
	a.renew(w, r, bearer(r), body.Increment.value, err)
}

func (a *active) renew(w http.ResponseWriter, r *http.Request, secret auth.Secret, increment time.Duration, err error) {
	var renewed *auth.Renewed
	if err == nil {
		renewed, err = a.tokens.Renew(r.Context(), secret, increment, a.writer(r))
	}
	a.replyRenewed(w, r, secret, renewed, err)
}

func (a *active) renewAccessor(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, false, true)
	var renewed *auth.Renewed
	if err == nil {
		renewed, err = a.tokens.RenewAccessor(r.Context(), body.Accessor, body.Increment.value, a.writer(r))
	}
	a.replyRenewed(w, r, "", renewed, err)
}

func (a *active) revokeToken(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, true, false)
	if err == nil {
		err = a.tokens.Revoke(r.Context(), auth.Secret(body.Token), a.writer(r))
	}
	a.replyDone(w, r, err)
}

func (a *active) revokeSelf(w http.ResponseWriter, r *http.Request) {
	_, err := a.decodeToken(w, r, false, false)
	if err == nil {
		err = a.tokens.Revoke(r.Context(), bearer(r), a.writer(r))
	}
	a.replyDone(w, r, err)
}

func (a *active) revokeAccessor(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, false, true)
	if err == nil {
		err = a.tokens.RevokeAccessor(r.Context(), body.Accessor, a.writer(r))
	}
	a.replyDone(w, r, err)
}

func (a *active) revokeOrphan(w http.ResponseWriter, r *http.Request) {
	body, err := a.decodeToken(w, r, true, false)
	if err == nil {
		err = a.tokens.RevokeOrphan(r.Context(), auth.Secret(body.Token), a.writer(r))
	}
	if errors.Is(err, auth.ErrNoToken) {
		err = Errorf(http.StatusBadRequest, "token to revoke not found")
	}
	a.replyDone(w, r, err)
}

func (a *active) listAccessors(w http.ResponseWriter, r *http.Request) {
	accessors, err := a.tokens.Accessors(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	slices.Sort(accessors)
	a.secret(w, r, http.StatusOK, map[string][]string{"keys": accessors})
}
