package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/locum-ha/locum/physical"
)

// maxMeta bounds what a token says of itself besides, in bytes.
const maxMeta = 16 << 10

// Creation is what a new token is to be.
type Creation struct {
	Path            string   // which request asks: auth/token/create
	ID              Secret   // the token itself; "": a random one. For those with the power of root
	Policies        []string // none: the parent's
	NoDefaultPolicy bool
	NoParent        bool // an orphan; for those with the power of root
	Orphan          bool // an orphan; Path itself says who may ask
	DisplayName     string
	Meta            map[string]string
	TTL             time.Duration // 0: the default
	ExplicitMaxTTL  time.Duration
	Period          time.Duration
	Renewable       *bool // nil: yes
	NumUses         int   // 0: any number
}

// Created is a new token.
type Created struct {
	Secret   Secret
	Token    *Token
	Warnings []string
}

// createdAnswer is what a request's slot keeps of it: all but the secret.
type createdAnswer struct {
	Token    json.RawMessage `json:"token"`
	Warnings []string        `json:"warnings,omitempty"`
}

// Create makes a token for the bearer, who was authorized. An *InvalidError says why it will not.
//
// A repeat gets the same token. Its secret is not stored for that: it is made from the bearer's own secret and the
// request's name, which the repeat has again.
func (s *Store) Create(ctx context.Context, bearer Secret, in Creation, req Request) (*Created, error) {
	parent := s.macs.sum(bearer)
	lock := s.lock(parent)
	lock.RLock() // while children are made the parent is not revoked
	defer lock.RUnlock()
	secret := in.ID
	switch {
	case secret != "":
	case req.Slot != "":
		secret = s.macs.child(bearer, requestName(req))
	default:
		secret = newSecret()
	}
	for range attempts {
		above, raw, rerr := s.read(ctx, parent)
		if rerr != nil && !errors.Is(rerr, ErrDenied) {
			return nil, rerr
		}
		if made, err := s.created(ctx, secret, req); made != nil || err != nil {
			return made, err
		}
		if rerr != nil {
			return nil, rerr
		}
		t, warnings, err := s.plan(ctx, above, in)
		if err != nil {
			return nil, err
		}
		if t.parent != nil {
			if err := s.checkDepth(ctx, above); err != nil {
				return nil, err
			}
			t.parent = &parent
		}
		err = s.commitNew(ctx, secret, t, raw, warnings, req)
		if err == nil {
			return &Created{secret, t, warnings}, nil
		}
		if !errors.Is(err, physical.ErrConflict) {
			return nil, err
		}
		req.Repeat = true // the parent changed, or another attempt landed, perhaps of this very request
		if done, err := s.created(ctx, secret, req); done != nil || err != nil {
			return done, err
		}
		if _, _, err := s.read(ctx, s.macs.sum(secret)); err == nil {
			return nil, invalidf("cannot create a token with a duplicate ID")
		}
	}
	return nil, busy()
}

// created gives what a repeated request made before; nil if it made nothing.
func (s *Store) created(ctx context.Context, secret Secret, req Request) (*Created, error) {
	var answer createdAnswer
	done, err := s.slots.Answered(ctx, req, &answer)
	if err != nil || !done {
		return nil, err
	}
	t, err := parseToken(answer.Token)
	if err != nil {
		return nil, err
	}
	return &Created{secret, t, answer.Warnings}, nil
}

func (s *Store) commitNew(ctx context.Context, secret Secret, t *Token, parent []byte, warnings []string, req Request) error {
	d := s.macs.sum(secret)
	ops, err := s.macs.store(d, t)
	if err != nil {
		return err
	}
	answer := createdAnswer{Token: ops[0].Value, Warnings: warnings}
	ops = append(ops, physical.RequireAbsent(tokenKey(d)))
	if t.parent != nil {
		ops = append(ops, physical.RequireValue(tokenKey(*t.parent), parent))
	}
	if ops, err = req.Append(ops, answer); err != nil {
		return err
	}
	if err := s.commit(ctx, []digest{d}, ops...); err != nil {
		return fmt.Errorf("create a token: %w", err)
	}
	return nil
}

// plan makes the token that a creation asks for, by the rules of Vault. Its parent is marked, not yet named.
func (s *Store) plan(ctx context.Context, by *Token, in Creation) (*Token, []string, error) {
	a, err := s.policies.of(ctx, s.entries, by.Policies)
	if err != nil {
		return nil, nil, err
	}
	sudo := a.sudo(in.Path)
	if err := checkCreation(by, in, sudo); err != nil {
		return nil, nil, err
	}
	t := &Token{
		Accessor: randomText(accessorLen), DisplayName: displayName(in.DisplayName), Path: in.Path, Meta: in.Meta,
		CreationTime: s.now().UTC().Truncate(time.Second), NumUses: in.NumUses,
		ExplicitMaxTTL: in.ExplicitMaxTTL, Period: in.Period,
	}
	if !in.NoParent && !in.Orphan {
		t.parent = new(digest)
	}
	if t.Policies, err = policiesFor(by, in, sudo); err != nil {
		return nil, nil, err
	}
	warnings, err := s.limit(by, in, t)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range t.Policies {
		if name == PolicyRoot {
			continue
		}
		if _, _, err := readPolicy(ctx, s.entries, name); errors.Is(err, ErrNoPolicy) {
			warnings = append(warnings, fmt.Sprintf("Policy %q does not exist", name))
		}
	}
	return t, warnings, nil
}

// checkCreation refuses what the bearer may not ask for, or nobody.
func checkCreation(by *Token, in Creation, sudo bool) error {
	size := 0
	for k, v := range in.Meta {
		size += len(k) + len(v)
	}
	switch {
	case by.NumUses != 0:
		return invalidf("restricted use token cannot generate child tokens")
	case in.ID != "" && !sudo:
		return invalidf("root or sudo privileges required to specify token id")
	case len(in.ID) > maxLen, strings.ContainsFunc(in.ID.Reveal(), func(r rune) bool { return r <= ' ' || r >= unicode.MaxASCII }):
		return invalidf("a token id consists of at most %d printable characters of ASCII, without spaces", maxLen)
	case in.NoParent && !sudo:
		return invalidf("root or sudo privileges required to create orphan token")
	case in.Period != 0 && !sudo:
		return invalidf("root or sudo privileges required to create periodic token")
	case in.NumUses < 0:
		return invalidf("number of uses cannot be negative")
	case in.TTL < 0:
		return invalidf("ttl must be positive")
	case in.ExplicitMaxTTL < 0:
		return invalidf("explicit_max_ttl must be positive")
	case in.Period < 0:
		return invalidf("period must be positive")
	case len(in.Policies) > maxPolicies:
		return invalidf("a token has at most %d policies, not %d", maxPolicies, len(in.Policies))
	case size > maxMeta:
		return invalidf("meta has %d bytes, the limit is %d", size, maxMeta)
	case len(in.DisplayName) > maxLen:
		return invalidf("display_name has %d bytes, the limit is %d", len(in.DisplayName), maxLen)
	}
	return nil
}

// policiesFor gives a new token's policies: a part of the bearer's, unless that has the power of root.
func policiesFor(by *Token, in Creation, sudo bool) ([]string, error) {
	names := slices.Clone(by.Policies)
	if len(in.Policies) > 0 {
		var err error
		if names, err = cleanPolicies(in.Policies); err != nil {
			return nil, err
		}
		if !sudo {
			for _, name := range names {
				if !slices.Contains(by.Policies, name) {
					return nil, invalidf("child policies must be subset of parent")
				}
			}
		}
		if !in.NoDefaultPolicy && (sudo || slices.Contains(by.Policies, PolicyDefault)) {
			names = append(names, PolicyDefault)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if slices.Contains(names, PolicyRoot) {
		if !by.Root() {
			return nil, invalidf("root tokens may not be created without parent token being root")
		}
		names = []string{PolicyRoot} // it says everything
	}
	if len(names) == 0 {
		return nil, invalidf("a token needs at least one policy")
	}
	return names, nil
}

func cleanPolicies(given []string) ([]string, error) {
	var names []string
	for _, g := range given {
		if strings.TrimSpace(g) == "" {
			continue
		}
		name, err := policyName(g)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// displayName begins with "token", and has letters, digits and dashes.
func displayName(given string) string {
	given = strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-') {
			return r
		}
		return '-'
	}, strings.TrimSpace(given))
	if given = strings.Trim(given, "-"); given == "" {
		return "token"
	}
	return "token-" + given
}

// limit says how long a new token lives.
func (s *Store) limit(by *Token, in Creation, t *Token) (warnings []string, err error) {
	t.TTL = in.TTL
	if t.Period > 0 || t.TTL > 0 || !t.Root() {
		t.TTL, warnings, err = s.ttl(t, in.TTL, t.CreationTime)
		if err != nil {
			return nil, err
		}
	} else if t.ExplicitMaxTTL > 0 {
		t.TTL = t.ExplicitMaxTTL
	}
	if t.TTL == 0 {
		if !by.ExpireTime.IsZero() {
			return nil, invalidf("expiring root tokens cannot create non-expiring root tokens")
		}
		return warnings, nil
	}
	t.ExpireTime = t.CreationTime.Add(t.TTL)
	t.Renewable = in.Renewable == nil || *in.Renewable
	return warnings, nil
}

// ttl is how long a token lives from now on that is made or renewed for wish: 0 for the default. It ends by the token's
// own limit and, unless it is periodic, by the limit of all tokens.
func (s *Store) ttl(t *Token, wish time.Duration, now time.Time) (ttl time.Duration, warnings []string, err error) {
	limit := s.cfg.MaxTTL
	if t.ExplicitMaxTTL > 0 {
		limit = min(limit, t.ExplicitMaxTTL)
	}
	end := t.CreationTime.Add(limit)
	switch {
	case t.Period > 0:
		if ttl = t.Period; ttl > limit {
			warnings = append(warnings, fmt.Sprintf("period of %q exceeded the effective max_ttl of %q; period value is capped accordingly", t.Period, limit))
			ttl = limit
		}
		if t.ExplicitMaxTTL == 0 {
			return ttl, warnings, nil
		}
		end = t.CreationTime.Add(t.ExplicitMaxTTL)
	case wish > 0:
		ttl = wish
	default:
		ttl = s.cfg.DefaultTTL
	}
	left := end.Sub(now)
	if left <= 0 {
		return 0, nil, invalidf("past the max TTL, cannot renew")
	}
	if ttl > left {
		if wish > 0 {
			warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", ttl, left))
		}
		ttl = left
	}
	return ttl, warnings, nil
}

// checkDepth refuses a child of a token that has too many generations above it.
func (s *Store) checkDepth(ctx context.Context, t *Token) error {
	for range maxParents {
		if t.parent == nil {
			return nil
		}
		above, err := s.get(ctx, *t.parent)
		if err != nil {
			return err
		}
		t = above
	}
	return invalidf("a token can have %d generations above it: create this one as an orphan, or with an older token", maxParents)
}
