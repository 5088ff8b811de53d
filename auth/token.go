package auth

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const (
	tokenFormat = 2
	firstFormat = 1 // had a root token and nothing else

	spent       = -1 // NumUses of a token whose last use was made
	rememberUse = 8  // uses remembered, so that a repeated request is not counted twice
)

// Token is what is known of a token; its secret is not. Tokens are shared: do not change one.
type Token struct {
	Accessor       string            // names the token without being it
	DisplayName    string            // for people
	Policies       []string          // what it may do, sorted
	Path           string            // which request made it
	CreationTime   time.Time         //
	TTL            time.Duration     // that it was made with; 0: for ever
	ExpireTime     time.Time         // zero: never
	LastRenewal    time.Time         // zero: not yet
	Renewable      bool              //
	ExplicitMaxTTL time.Duration     // from CreationTime on, whatever the renewals; 0: none
	Period         time.Duration     // each renewal gives this, without end; 0: not periodic
	NumUses        int               // that are left; 0: any number
	Meta           map[string]string // for people and audits

	parent   *digest  // the token that made it; nil for an orphan
	uses     []string // the last requests that used it, if its uses are counted
	answered bool     // stands for the bearer of a repeat that was carried out before
}

// Root reports whether the token may do everything.
func (t *Token) Root() bool { return slices.Contains(t.Policies, PolicyRoot) }

// Orphan reports whether the token outlives the one that made it.
func (t *Token) Orphan() bool { return t.parent == nil }

// Expired reports whether the token has run out. Stored instants are the wall clock's of the node that was active then
// (see the package's DESIGN).
func (t *Token) Expired(now time.Time) bool {
	return !t.ExpireTime.IsZero() && !now.Before(t.ExpireTime)
}

// Remaining is how long the token will live; 0 if it never runs out, or has.
func (t *Token) Remaining(now time.Time) time.Duration {
	if t.ExpireTime.IsZero() {
		return 0
	}
	return max(0, t.ExpireTime.Sub(now))
}

type storedToken struct {
	Format         int               `json:"format"`
	Accessor       string            `json:"accessor"`
	DisplayName    string            `json:"display_name,omitempty"`
	Policies       []string          `json:"policies"`
	Path           string            `json:"path,omitempty"`
	CreationTime   time.Time         `json:"creation_time"`
	TTL            time.Duration     `json:"ttl_ns,omitempty"`
	ExpireTime     time.Time         `json:"expire_time,omitzero"`
	LastRenewal    time.Time         `json:"last_renewal,omitzero"`
	Renewable      bool              `json:"renewable,omitempty"`
	ExplicitMaxTTL time.Duration     `json:"explicit_max_ttl_ns,omitempty"`
	Period         time.Duration     `json:"period_ns,omitempty"`
	NumUses        int               `json:"num_uses,omitempty"`
	Uses           []string          `json:"uses,omitempty"`
	Meta           map[string]string `json:"meta,omitempty"`
	Parent         string            `json:"parent,omitempty"` // its digest
}

func (t *Token) marshal() ([]byte, error) {
	s := storedToken{
		Format: tokenFormat, Accessor: t.Accessor, DisplayName: t.DisplayName, Policies: t.Policies, Path: t.Path,
		CreationTime: t.CreationTime, TTL: t.TTL, ExpireTime: t.ExpireTime, LastRenewal: t.LastRenewal,
		Renewable: t.Renewable, ExplicitMaxTTL: t.ExplicitMaxTTL, Period: t.Period, NumUses: t.NumUses, Uses: t.uses,
		Meta: t.Meta,
	}
	if t.parent != nil {
		s.Parent = t.parent.String()
	}
	return json.Marshal(s)
}

func parseToken(data []byte) (*Token, error) {
	var s storedToken
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.Format > tokenFormat {
		return nil, fmt.Errorf("token: %w: format %d, this build knows %d", ErrNewerFormat, s.Format, tokenFormat)
	}
	if s.Format < firstFormat || s.Accessor == "" || s.TTL < 0 || s.NumUses < spent || s.ExplicitMaxTTL < 0 || s.Period < 0 {
		return nil, fmt.Errorf("%w: token of format %d", ErrDamaged, s.Format)
	}
	t := &Token{
		Accessor: s.Accessor, DisplayName: s.DisplayName, Policies: s.Policies, Path: s.Path,
		CreationTime: s.CreationTime, TTL: s.TTL, ExpireTime: s.ExpireTime, LastRenewal: s.LastRenewal,
		Renewable: s.Renewable, ExplicitMaxTTL: s.ExplicitMaxTTL, Period: s.Period, NumUses: s.NumUses, uses: s.Uses,
		Meta: s.Meta,
	}
	if s.Format == firstFormat {
		if s.TTL > 0 {
			t.ExpireTime = s.CreationTime.Add(s.TTL)
		}
		return t, nil
	}
	if s.Parent != "" {
		d, err := parseDigest(s.Parent)
		if err != nil {
			return nil, err
		}
		t.parent = &d
	}
	return t, nil
}

// digest is the HMAC under which a token or an accessor is stored.
type digest [32]byte

func (d digest) String() string { return hex.EncodeToString(d[:]) }

func parseDigest(text string) (d digest, err error) {
	if len(text) != hex.EncodedLen(len(d)) {
		return d, fmt.Errorf("%w: a digest of %d characters", ErrDamaged, len(text))
	}
	if _, err := hex.Decode(d[:], []byte(text)); err != nil {
		return d, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return d, nil
}

// storedAccessor leads from an accessor to its token.
type storedAccessor struct {
	Format int    `json:"format"`
	Token  string `json:"token"` // digest
}

const accessorFormat = 1

func marshalAccessor(d digest) []byte {
	value, _ := json.Marshal(storedAccessor{accessorFormat, d.String()}) // a number and a string always can be
	return value
}

func parseAccessor(data []byte) (d digest, err error) {
	var s storedAccessor
	if err := json.Unmarshal(data, &s); err != nil {
		return d, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.Format > accessorFormat {
		return d, fmt.Errorf("accessor: %w: format %d, this build knows %d", ErrNewerFormat, s.Format, accessorFormat)
	}
	return parseDigest(s.Token)
}
