package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/locum-ha/locum/physical"
)

const (
	policyFormat = 1
	maxACLs      = 1024 // sets of policies kept in memory
)

type storedPolicy struct {
	Format int    `json:"format"`
	Name   string `json:"name"`
	Text   string `json:"text"`
}

// policyKey is where a policy is stored: one segment, whatever its name.
func policyKey(name string) string {
	escaped := url.PathEscape(name)
	if strings.Trim(escaped, ".") == "" {
		escaped = strings.ReplaceAll(escaped, ".", "%2E")
	}
	return policyPrefix + escaped
}

func marshalPolicy(name, text string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(storedPolicy{policyFormat, name, text}) // strings always can be
	return bytes.TrimSpace(b.Bytes())
}

func readPolicy(ctx context.Context, entries Entries, name string) (text string, raw []byte, err error) {
	e, err := entries.Get(ctx, policyKey(name))
	if errors.Is(err, physical.ErrNotFound) {
		if name == PolicyDefault {
			return defaultText, nil, nil
		}
		return "", nil, ErrNoPolicy
	}
	if err != nil {
		return "", nil, fmt.Errorf("policy %q: %w", name, err)
	}
	var p storedPolicy
	if err := json.Unmarshal(e.Value, &p); err != nil {
		return "", nil, fmt.Errorf("policy %q: %w: %w", name, ErrDamaged, err)
	}
	if p.Format > policyFormat {
		return "", nil, fmt.Errorf("policy %q: %w: format %d, this build knows %d", name, ErrNewerFormat, p.Format, policyFormat)
	}
	return p.Text, e.Value, nil
}

// Policy returns a policy's name as it is stored, and its text: "" for the policy "root". [ErrNoPolicy] if there is none.
func (s *Store) Policy(ctx context.Context, name string) (stored, text string, err error) {
	if stored, err = policyName(name); err != nil || stored == PolicyRoot {
		return stored, "", err
	}
	text, _, err = readPolicy(ctx, s.entries, stored)
	return stored, text, err
}

// Policies lists the names of all policies, in order.
func (s *Store) Policies(ctx context.Context) ([]string, error) {
	keys, err := s.entries.List(ctx, policyPrefix, "", 0)
	if err != nil {
		return nil, err
	}
	names := []string{PolicyDefault, PolicyRoot}
	for _, key := range keys {
		if name, err := url.PathUnescape(key); err == nil && name != PolicyDefault {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// SetPolicy writes a policy. An *InvalidError says what is wrong with it.
func (s *Store) SetPolicy(ctx context.Context, name, text string, req Request) error {
	name, err := policyName(name)
	if err != nil {
		return err
	}
	if name == PolicyRoot {
		return invalidf("cannot update %q policy", name)
	}
	if strings.TrimSpace(text) == "" {
		return invalidf("'policy' parameter not supplied or empty")
	}
	if _, err := parsePolicy(text); err != nil {
		return err
	}
	return s.changePolicy(ctx, name, req, physical.Put(policyKey(name), marshalPolicy(name, text)))
}

// DeletePolicy removes a policy, if it is there. Tokens that have it may do less from then on.
func (s *Store) DeletePolicy(ctx context.Context, name string, req Request) error {
	name, err := policyName(name)
	if err != nil {
		return err
	}
	if name == PolicyRoot || name == PolicyDefault {
		return invalidf("cannot delete %q policy", name)
	}
	return s.changePolicy(ctx, name, req, physical.Delete(policyKey(name)))
}

func (s *Store) changePolicy(ctx context.Context, name string, req Request, op physical.Op) error {
	s.policies.turn.Lock()
	defer s.policies.turn.Unlock()
	for range attempts {
		_, raw, err := readPolicy(ctx, s.entries, name)
		if err != nil && !errors.Is(err, ErrNoPolicy) && !errors.Is(err, ErrDamaged) {
			return err
		}
		if done, err := s.slots.Answered(ctx, req, nil); done || err != nil {
			return err
		}
		unchanged := physical.RequireAbsent(op.Key)
		if raw != nil {
			unchanged = physical.RequireValue(op.Key, raw)
		}
		ops, err := req.Append([]physical.Op{unchanged, op}, nil)
		if err != nil {
			return err
		}
		err = s.entries.Commit(ctx, ops...)
		s.policies.changed(errors.Is(err, physical.ErrUnknown))
		if !errors.Is(err, physical.ErrConflict) {
			return err
		}
		req.Repeat = true // another attempt landed, late, perhaps of this very request
	}
	return busy()
}

// Capabilities names what a token may do at a path.
func (s *Store) Capabilities(ctx context.Context, t *Token, path string) ([]string, error) {
	a, err := s.policies.of(ctx, s.entries, t.Policies)
	if err != nil {
		return nil, err
	}
	return a.capabilities(path), nil
}

// policyCache keeps what sets of policies allow.
type policyCache struct {
	turn sync.Mutex // writers take turns

	mu     sync.RWMutex
	acls   map[string]*acl
	writes uint64
	unsure bool // a write's outcome is unknown: it can land at any time, and nothing is kept
}

// changed forgets everything: a policy was written.
func (c *policyCache) changed(unknown bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.acls)
	c.writes++
	c.unsure = c.unsure || unknown
}

func (c *policyCache) reset() { c.changed(false) }

// of joins policies. Those that there are not allow nothing.
func (c *policyCache) of(ctx context.Context, entries Entries, names []string) (*acl, error) {
	key := strings.Join(names, ",") // no name has a comma
	c.mu.RLock()
	a, writes := c.acls[key], c.writes
	c.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	if slices.Contains(names, PolicyRoot) {
		return &acl{root: true}, nil
	}
	var all []rule
	for _, name := range names {
		text, _, err := readPolicy(ctx, entries, name)
		if errors.Is(err, ErrNoPolicy) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rules, err := parsePolicy(text)
		if err != nil {
			return nil, fmt.Errorf("policy %q: %w: %v", name, ErrDamaged, err)
		}
		all = append(all, rules...)
	}
	a = newACL(all)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writes == writes && !c.unsure {
		if len(c.acls) >= maxACLs {
			clear(c.acls)
		}
		c.acls[key] = a
	}
	return a, nil
}
