package auth

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/locum-ha/locum/physical"
)

// What is in memory is never older than what is stored: a token that was read before it was revoked is not kept after.
func TestMemoryIsCurrent(t *testing.T) {
	s, v, root := newStore(t)
	made := create(t, s, root, Creation{})
	s = again(t, v)
	v.onGet = func(key string) {
		if key != tokenKey(s.macs.sum(made.Secret)) {
			return
		}
		v.mu.Lock()
		v.onGet = nil
		v.mu.Unlock()
		must(t, s.Revoke(t.Context(), made.Secret, Request{}))
	}
	_, _ = s.Verify(t.Context(), made.Secret) // overlaps the revocation: either answer is right
	works(t, s, "revoked", made.Secret, false)

	// A revocation with an unknown outcome lands later.
	made = create(t, s, root, Creation{})
	works(t, s, "before", made.Secret, true)
	var late func() error
	v.setCommit(func(_ []physical.Op, commit func() error) error { late = commit; return physical.ErrUnknown })
	if err := s.Revoke(t.Context(), made.Secret, Request{}); !errors.Is(err, physical.ErrUnknown) {
		t.Error(err)
	}
	v.setCommit(nil)
	works(t, s, "not landed", made.Secret, true)
	must(t, late())
	works(t, s, "landed", made.Secret, false)
}

// Property: after any history a token works exactly if it, and all above it up to an orphan, was neither revoked nor ran out.
func TestTreeProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type node struct {
			secret Secret
			parent *node
			gone   bool
			ends   time.Time
		}
		secret, ops, err := NewRootToken(testKey, testNow)
		must(t, err)
		v := newView(t)
		must(t, v.Commit(t.Context(), ops...))
		now := testNow
		open := func() *Store {
			s, err := New(v, testKey, Config{Now: func() time.Time { return now }})
			must(t, err)
			return s
		}
		s := open()
		nodes := []*node{{secret: secret, ends: testNow.Add(1e5 * time.Hour)}}
		var alive func(n *node) bool
		alive = func(n *node) bool {
			return n == nil || !n.gone && now.Before(n.ends) && alive(n.parent)
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			n := rapid.SampledFrom(nodes).Draw(rt, "token")
			switch rapid.IntRange(0, 6).Draw(rt, "what") {
			case 0, 1, 2:
				in := Creation{Path: "auth/token/create", NoParent: rapid.Bool().Draw(rt, "orphan"), Policies: []string{"root"}}
				in.TTL = time.Duration(rapid.IntRange(1, 600).Draw(rt, "ttl")) * time.Second
				made, err := s.Create(t.Context(), n.secret, in, Request{})
				if err != nil {
					if alive(n) && !strings.Contains(err.Error(), "generations") {
						rt.Fatalf("create: %v", err)
					}
					continue
				}
				child := &node{secret: made.Secret, parent: n, ends: now.Truncate(time.Second).Add(in.TTL)}
				if in.NoParent {
					child.parent = nil
				}
				nodes = append(nodes, child)
			case 3:
				if n.secret != secret {
					must(t, s.Revoke(t.Context(), n.secret, Request{}))
					n.gone = true
				}
			case 4:
				if n.secret == secret || !alive(n) {
					continue
				}
				must(t, s.RevokeOrphan(t.Context(), n.secret, Request{}))
				n.gone = true
				for _, c := range nodes {
					if c.parent == n {
						c.parent = nil
					}
				}
			case 5:
				now = now.Add(time.Duration(rapid.IntRange(1, 300).Draw(rt, "later")) * time.Second)
			case 6:
				if rapid.Bool().Draw(rt, "failover") {
					s = open()
				}
				must(t, s.sweep(t.Context()))
			}
			for i, n := range nodes {
				if _, err := s.Verify(t.Context(), n.secret); (err == nil) != alive(n) {
					rt.Fatalf("token %d: %v, want it alive: %v", i, err, alive(n))
				}
			}
		}
		// In the end everything goes.
		now = now.Add(1000 * time.Hour)
		for range 3 {
			must(t, s.sweep(t.Context()))
		}
		if left := v.all(t); len(left) != 2 {
			rt.Fatalf("left behind: %v", left)
		}
	})
}
