package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

const tokenFormat = 1

// PolicyRoot is the policy that allows everything.
const PolicyRoot = "root"

var (
	// ErrDenied: there is no such token, or it has run out. Which of the two is not told.
	ErrDenied = errors.New("permission denied")
	// ErrNewerFormat: the token was stored by a newer version of Locum.
	ErrNewerFormat = errors.New("newer format")
	// ErrDamaged: what is stored of the token cannot be read.
	ErrDamaged = errors.New("stored token is damaged")
)

// Token is what is known of a token; its secret is not. Tokens are shared: do not change one.
type Token struct {
	Accessor     string        // names the token without being it
	DisplayName  string        // for people
	Policies     []string      // what it may do
	Path         string        // which request made it
	CreationTime time.Time     //
	TTL          time.Duration // from CreationTime on; 0: for ever
	Parent       string        // accessor of the token that made it; "" for an orphan
}

// Root reports whether the token may do everything.
func (t *Token) Root() bool { return slices.Contains(t.Policies, PolicyRoot) }

// Expired reports whether the token has run out.
func (t *Token) Expired(now time.Time) bool {
	return t.TTL > 0 && !now.Before(t.CreationTime.Add(t.TTL))
}

type storedToken struct {
	Format       int       `json:"format"`
	Accessor     string    `json:"accessor"`
	DisplayName  string    `json:"display_name,omitempty"`
	Policies     []string  `json:"policies"`
	Path         string    `json:"path,omitempty"`
	CreationTime time.Time `json:"creation_time"`
	TTL          int64     `json:"ttl_ns,omitempty"`
	Parent       string    `json:"parent,omitempty"`
}

func (t *Token) marshal() ([]byte, error) {
	return json.Marshal(storedToken{
		tokenFormat, t.Accessor, t.DisplayName, t.Policies, t.Path, t.CreationTime, int64(t.TTL), t.Parent,
	})
}

func parseToken(data []byte) (*Token, error) {
	var s storedToken
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.Format > tokenFormat {
		return nil, fmt.Errorf("token: %w: format %d, this build knows %d", ErrNewerFormat, s.Format, tokenFormat)
	}
	if s.Format != tokenFormat || s.Accessor == "" || s.TTL < 0 {
		return nil, fmt.Errorf("%w: format %d", ErrDamaged, s.Format)
	}
	return &Token{s.Accessor, s.DisplayName, s.Policies, s.Path, s.CreationTime, time.Duration(s.TTL), s.Parent}, nil
}
