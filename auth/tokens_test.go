package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/physical"
)

func create(t testing.TB, s *Store, bearer Secret, in Creation, req ...Request) *Created {
	t.Helper()
	if in.Path == "" {
		in.Path = "auth/token/create"
	}
	made, err := s.Create(t.Context(), bearer, in, append(req, Request{})[0])
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return made
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func works(t testing.TB, s *Store, what string, secret Secret, want bool) {
	t.Helper()
	_, err := s.Verify(t.Context(), secret)
	if want && err != nil || !want && !errors.Is(err, ErrDenied) {
		t.Errorf("%s: %v, want it to work: %v", what, err, want)
	}
}

func ptr[T any](v T) *T { return &v }

// What a new token is, and what is refused, as in Vault.
func TestCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, root := newStore(t)
		must(t, s.SetPolicy(t.Context(), "maker", `path "auth/token/create*" { capabilities = ["update"] }`, Request{}))
		must(t, s.SetPolicy(t.Context(), "boss", `path "auth/token/create" { capabilities = ["update", "sudo"] }`, Request{}))
		maker := create(t, s, root, Creation{Policies: []string{"maker", "other"}}).Secret
		boss := create(t, s, root, Creation{Policies: []string{"boss"}, NoDefaultPolicy: true}).Secret
		once := create(t, s, root, Creation{Policies: []string{"maker"}, NumUses: 1}).Secret
		mortal := create(t, s, root, Creation{TTL: time.Hour}).Secret
		for _, c := range []struct {
			name   string
			bearer Secret
			in     Creation
			want   string // policies ttl period renewable orphan display warnings, or the error
		}{
			{"root's child", root, Creation{}, "[root] 0s 0s false false token []"},
			{"with the default", root, Creation{Policies: []string{"Boss "}}, "[boss default] 768h0m0s 0s true false token []"},
			{"without the default", root, Creation{Policies: []string{"boss"}, NoDefaultPolicy: true}, "[boss] 768h0m0s 0s true false token []"},
			{"unknown policy", root, Creation{Policies: []string{"nosuch", "root2"}}, `[default nosuch root2] 768h0m0s 0s true false token [Policy "nosuch" does not exist Policy "root2" does not exist]`},
			{"root says all", root, Creation{Policies: []string{"a", "root"}, TTL: time.Hour}, "[root] 1h0m0s 0s true false token []"},
			{"too long", root, Creation{Policies: []string{"boss"}, TTL: 1000 * time.Hour}, `[boss default] 768h0m0s 0s true false token [TTL of "1000h0m0s" exceeded the effective max_ttl of "768h0m0s"; TTL value is capped accordingly]`},
			{"own limit", root, Creation{Policies: []string{"boss"}, ExplicitMaxTTL: time.Hour}, "[boss default] 1h0m0s 0s true false token []"},
			{"root with a limit", root, Creation{ExplicitMaxTTL: time.Hour}, "[root] 1h0m0s 0s true false token []"},
			{"periodic", root, Creation{Policies: []string{"boss"}, Period: time.Hour, TTL: time.Minute}, "[boss default] 1h0m0s 1h0m0s true false token []"},
			{"orphan", root, Creation{Policies: []string{"boss"}, NoParent: true, DisplayName: "C I/1", Renewable: ptr(false)}, "[boss default] 768h0m0s 0s false true token-C-I-1 []"},
			{"inherits", maker, Creation{TTL: time.Minute}, "[default maker other] 1m0s 0s true false token []"},
			{"a part", maker, Creation{Policies: []string{"other"}}, `[default other] 768h0m0s 0s true false token [Policy "other" does not exist]`},
			{"more", maker, Creation{Policies: []string{"other", "boss"}}, "child policies must be subset of parent"},
			{"maker's root", maker, Creation{Policies: []string{"root"}}, "child policies must be subset of parent"},
			{"maker's orphan", maker, Creation{NoParent: true}, "root or sudo privileges required to create orphan token"},
			{"create-orphan", maker, Creation{Orphan: true, Path: "auth/token/create-orphan"}, `[default maker other] 768h0m0s 0s true true token [Policy "other" does not exist]`},
			{"maker's period", maker, Creation{Period: time.Hour}, "root or sudo privileges required to create periodic token"},
			{"maker's id", maker, Creation{ID: "my-own"}, "root or sudo privileges required to specify token id"},
			{"boss", boss, Creation{Policies: []string{"maker"}, NoParent: true}, "[default maker] 768h0m0s 0s true true token []"},
			{"boss's root", boss, Creation{Policies: []string{"root"}}, "root tokens may not be created without parent token being root"},
			{"boss elsewhere", boss, Creation{Policies: []string{"maker"}, Path: "auth/token/create-orphan"}, "child policies must be subset of parent"},
			{"counted", once, Creation{}, "restricted use token cannot generate child tokens"},
			{"endless child of a mortal root", mortal, Creation{}, "expiring root tokens cannot create non-expiring root tokens"},
			{"negative", root, Creation{NumUses: -1}, "number of uses cannot be negative"},
			{"bad id", root, Creation{ID: "a b"}, "a token id consists of at most 256 printable characters of ASCII, without spaces"},
			{"much", root, Creation{Meta: map[string]string{"a": strings.Repeat("x", maxMeta)}}, "meta has 16385 bytes, the limit is 16384"},
			{"bad name", root, Creation{Policies: []string{"a,b"}}, `the name of a policy "a,b" has a comma or a character that cannot be printed`},
		} {
			if c.in.Path == "" {
				c.in.Path = "auth/token/create"
			}
			got := ""
			made, err := s.Create(t.Context(), c.bearer, c.in, Request{})
			if err != nil {
				if got = err.Error(); !errors.Is(err, ErrInvalid) {
					t.Errorf("%s: %v", c.name, err)
				}
			} else {
				m := made.Token
				warnings := slices.DeleteFunc(made.Warnings, func(w string) bool { return c.name == "inherits" })
				got = fmt.Sprint(m.Policies, " ", m.TTL, " ", m.Period, " ", m.Renewable, " ", m.Orphan(), " ", m.DisplayName, " ", warnings)
				works(t, s, c.name, made.Secret, true)
			}
			if got != c.want {
				t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
			}
		}
		chosen := create(t, s, root, Creation{ID: "my-own"})
		works(t, s, "chosen", "my-own", chosen.Secret == "my-own")
		if _, err := s.Create(t.Context(), root, Creation{ID: "my-own"}, Request{}); err == nil || !strings.Contains(err.Error(), "duplicate ID") {
			t.Error(err)
		}
	})
}

// P6: a repeated creation makes one token and gives the same secret, also on the next active node.
func TestCreateOnce(t *testing.T) {
	s, v, root := newStore(t)
	req := Request{ID: "7", Slot: "node/1/0"}
	first := create(t, s, root, Creation{}, req)
	before := len(v.all(t))
	req.Repeat = true
	for range 2 {
		second := create(t, s, root, Creation{}, req)
		if second.Secret != first.Secret || second.Token.Accessor != first.Token.Accessor || len(v.all(t)) != before {
			t.Error("another token")
		}
		s = again(t, v)
	}
	if other := create(t, s, root, Creation{}, Request{ID: "8", Slot: "node/1/0"}); other.Secret == first.Secret {
		t.Error("the next request got the same token")
	}
	if other := create(t, s, first.Secret, Creation{}, Request{ID: "7", Slot: "node/1/1"}); other.Secret == first.Secret {
		t.Error("another bearer's request got the same token")
	}
	// An attempt lands while its repeat is under way.
	landed := false
	v.setCommit(func(ops []physical.Op, commit func() error) error {
		if !landed {
			landed = true
			must(t, commit())
		}
		return commit()
	})
	late := Request{ID: "9", Slot: "node/1/3", Repeat: true}
	got := create(t, s, root, Creation{}, late)
	v.setCommit(nil)
	if same := create(t, s, root, Creation{}, late); same.Secret != got.Secret || same.Token.Accessor != got.Token.Accessor {
		t.Error("two tokens")
	}
}

// A revoked token takes its descendants with it in that instant; what is left of them goes later. Orphans stay.
func TestRevokeTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, root := newStore(t)
		before := len(v.all(t))
		top := create(t, s, root, Creation{TTL: time.Hour}).Secret
		orphan := create(t, s, top, Creation{NoParent: true, TTL: time.Hour}).Secret
		var below []Secret
		for range 40 {
			child := create(t, s, top, Creation{TTL: time.Hour}).Secret
			grandchild := create(t, s, child, Creation{TTL: time.Hour, Policies: []string{"x"}}).Secret
			below = append(below, child, grandchild)
		}
		for _, b := range below {
			works(t, s, "before", b, true)
		}
		must(t, s.Revoke(t.Context(), top, Request{}))
		must(t, s.Revoke(t.Context(), top, Request{})) // is revoked already
		for _, store := range []*Store{s, again(t, v)} {
			works(t, store, "revoked", top, false)
			works(t, store, "orphan", orphan, true)
			for _, b := range below {
				works(t, store, "descendant", b, false)
			}
		}
		s = again(t, v) // a failover: what is to be removed is known
		must(t, s.sweep(t.Context()))
		must(t, s.Revoke(t.Context(), orphan, Request{}))
		if left := v.all(t); len(left) != before {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestRevokeOrphan(t *testing.T) {
	s, v, root := newStore(t)
	before := len(v.all(t))
	top := create(t, s, root, Creation{TTL: time.Hour}).Secret
	var children, below []Secret
	for range 3*orphanPage + 1 {
		c := create(t, s, top, Creation{TTL: time.Hour}).Secret
		children = append(children, c)
		below = append(below, create(t, s, c, Creation{TTL: time.Hour}).Secret)
	}
	must(t, s.RevokeOrphan(t.Context(), top, Request{}))
	works(t, s, "revoked", top, false)
	for i, c := range children {
		works(t, s, "child", c, true)
		works(t, s, "grandchild", below[i], true)
		tok, err := s.Verify(t.Context(), c)
		if err != nil || !tok.Orphan() {
			t.Error("no orphan", err)
		}
	}
	if err := s.RevokeOrphan(t.Context(), top, Request{}); !errors.Is(err, ErrNoToken) {
		t.Error(err)
	}
	for _, c := range children {
		must(t, s.Revoke(t.Context(), c, Request{}))
	}
	must(t, s.sweep(t.Context()))
	if left := v.all(t); len(left) != before {
		t.Errorf("left behind: %d", len(left)-before)
	}
}

// Tokens that ran out are denied at once, and removed by whoever is active then.
func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, root := newStore(t)
		before := len(v.all(t))
		parent := create(t, s, root, Creation{TTL: 10 * time.Minute})
		child := create(t, s, parent.Secret, Creation{TTL: 5 * time.Hour})
		renewed := create(t, s, root, Creation{TTL: 10 * time.Minute, Policies: []string{"x"}})
		time.Sleep(9 * time.Minute)
		if r, err := s.Renew(t.Context(), renewed.Secret, 0, Request{}); err != nil || r.Token.Remaining(time.Now()) != 10*time.Minute {
			t.Error(r, err)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		works(t, s, "last instant", parent.Secret, true)
		time.Sleep(time.Nanosecond)
		works(t, s, "ran out", parent.Secret, false)
		works(t, s, "its child", child.Secret, false)
		works(t, s, "renewed", renewed.Secret, true)
		s = again(t, v)
		works(t, s, "ran out, on the next node", parent.Secret, false)
		done := make(chan error)
		ctx, cancel := contextWithCancel(t)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if left := v.all(t); len(left) != before+4 {
			t.Errorf("left behind: %v", left)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if left := v.all(t); len(left) != before {
			t.Errorf("left behind: %v", left)
		}
		cancel()
		must(t, <-done)
	})
}

// Run goes on after errors of the store, and removes around what is damaged.
func TestRunGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, root := newStore(t)
		before := len(v.all(t))
		create(t, s, root, Creation{TTL: time.Minute})
		damaged := digest{1}
		must(t, v.Commit(t.Context(), physical.Put(tokenKey(damaged), []byte("x")), physical.Put(expiryKey(time.Now().Add(time.Minute), damaged), nil)))
		fails := 3
		v.setCommit(func(ops []physical.Op, commit func() error) error {
			if fails > 0 {
				fails--
				return physical.ErrUnavailable
			}
			return commit()
		})
		done := make(chan error)
		ctx, cancel := contextWithCancel(t)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if left := len(v.all(t)); left != before+2 {
			t.Errorf("%d left behind", left-before)
		}
		cancel()
		must(t, <-done)
	})
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, root := newStore(t)
		renew := func(secret Secret, increment time.Duration) string {
			r, err := s.Renew(t.Context(), secret, increment, Request{})
			if err != nil {
				return err.Error()
			}
			return fmt.Sprint(r.Token.Remaining(time.Now()), len(r.Warnings))
		}
		x := []string{"x"}
		plain := create(t, s, root, Creation{Policies: x, TTL: time.Hour})
		periodic := create(t, s, root, Creation{Policies: x, Period: time.Hour})
		limited := create(t, s, root, Creation{Policies: x, TTL: time.Hour, ExplicitMaxTTL: 2 * time.Hour})
		fixed := create(t, s, root, Creation{Policies: x, TTL: time.Hour, Renewable: ptr(false)})
		time.Sleep(30 * time.Minute)
		for _, c := range []struct {
			name   string
			secret Secret
			inc    time.Duration
			want   string
		}{
			{"as made", plain.Secret, 0, "1h0m0s 0"},
			{"longer", plain.Secret, 3 * time.Hour, "3h0m0s 0"},
			{"too long", plain.Secret, 1000 * time.Hour, "767h30m0s 1"},
			{"shorter", plain.Secret, time.Minute, "1m0s 0"},
			{"periodic", periodic.Secret, 9 * time.Hour, "1h0m0s 0"},
			{"limited", limited.Secret, 9 * time.Hour, "1h30m0s 1"},
			{"fixed", fixed.Secret, 0, "lease is not renewable"},
			{"root", root, 0, "lease is not renewable"},
			{"none", "lcm.none", 0, "bad token"},
			{"negative", plain.Secret, -1, "increment must be positive"},
		} {
			if got := renew(c.secret, c.inc); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
		for range 2000 { // days
			time.Sleep(50 * time.Minute)
			if got := renew(periodic.Secret, 0); got != "1h0m0s 0" {
				t.Fatal("a periodic token ends", got)
			}
		}
		works(t, s, "limited", limited.Secret, false)
		if got := renew(limited.Secret, 0); got != "bad token" {
			t.Error("renewed after its end:", got)
		}
		if tok, err := s.LookupAccessor(t.Context(), periodic.Token.Accessor); err != nil || tok.LastRenewal.IsZero() {
			t.Error(tok, err)
		}
		if _, err := s.RenewAccessor(t.Context(), periodic.Token.Accessor, 0, Request{}); err != nil {
			t.Error(err)
		}
	})
}

// P6: a repeated renewal or revocation does nothing, and is answered as before.
func TestChangesOnce(t *testing.T) {
	s, v, root := newStore(t)
	made := create(t, s, root, Creation{TTL: time.Hour})
	req := Request{ID: "1", Slot: "n/1/1"}
	first, err := s.Renew(t.Context(), made.Secret, 0, req)
	must(t, err)
	commits := 0
	v.setCommit(func(_ []physical.Op, commit func() error) error { commits++; return commit() })
	req.Repeat = true
	second, err := s.Renew(t.Context(), made.Secret, 0, req)
	if err != nil || !second.Token.ExpireTime.Equal(first.Token.ExpireTime) || commits != 0 {
		t.Error(second, err, commits)
	}
	revoke := Request{ID: "2", Slot: "n/1/1"}
	must(t, s.Revoke(t.Context(), made.Secret, revoke))
	works(t, s, "revoked", made.Secret, false)
	// The repeat of a token's own revocation comes with a token that is gone.
	revoke.Repeat = true
	s, commits = again(t, v), 0
	if _, err := s.Authorize(t.Context(), made.Secret, Access{Path: "auth/token/revoke-self", Op: Update}, revoke); err != nil {
		t.Error(err)
	}
	must(t, s.Revoke(t.Context(), made.Secret, revoke))
	must(t, s.RevokeAccessor(t.Context(), made.Token.Accessor, revoke))
	if commits != 0 {
		t.Error("a repeat wrote")
	}
	if _, err := s.Authorize(t.Context(), made.Secret, Access{Path: "x", Op: Update}, Request{ID: "3", Slot: "n/1/1", Repeat: true}); !errors.Is(err, ErrDenied) {
		t.Error("another request passed", err)
	}
	if err := s.RevokeAccessor(t.Context(), made.Token.Accessor, Request{}); !errors.Is(err, ErrNoAccessor) {
		t.Error(err)
	}
}

// Uses are counted in the store; the last one's request still passes, and its repeats, which are not counted again (P6).
func TestUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v, root := newStore(t)
		before := len(v.all(t))
		made := create(t, s, root, Creation{Policies: []string{"x"}, NumUses: 3, TTL: time.Hour})
		use := func(want int, req Request) {
			t.Helper()
			tok, err := s.Authorize(t.Context(), made.Secret, Access{Any: true}, req)
			if want == 0 {
				if !errors.Is(err, ErrDenied) {
					t.Errorf("%v, %v", tok, err)
				}
				return
			}
			if err != nil || tok.NumUses != want {
				t.Errorf("%+v, %v, want %d left", tok, err, want)
			}
		}
		use(2, Request{})
		use(1, Request{ID: "a", Slot: "n/1"})
		s = again(t, v)
		use(1, Request{ID: "a", Slot: "n/1", Repeat: true})
		if err := s.Check(t.Context(), made.Secret, Access{Any: true}); !errors.Is(err, ErrDenied) {
			t.Error("a use that cannot be counted is denied", err)
		}
		use(spent, Request{ID: "b", Slot: "n/2"})
		works(t, s, "spent", made.Secret, false)
		use(spent, Request{ID: "b", Slot: "n/2", Repeat: true})
		use(0, Request{ID: "c", Slot: "n/2"})
		use(0, Request{})
		if _, err := s.Lookup(t.Context(), made.Secret); !errors.Is(err, ErrNoToken) {
			t.Error(err)
		}
		if _, err := s.Renew(t.Context(), made.Secret, 0, Request{}); err == nil {
			t.Error("a spent token was renewed")
		}
		time.Sleep(spentFor + 2*time.Minute)
		must(t, s.sweep(t.Context()))
		if left := v.all(t); len(left) != before {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestAccessors(t *testing.T) {
	s, _, root := newStore(t)
	want := []string{}
	for range 5 {
		want = append(want, create(t, s, root, Creation{}).Token.Accessor)
	}
	tok, _ := s.Verify(t.Context(), root)
	want = append(want, tok.Accessor)
	got, err := s.Accessors(t.Context())
	slices.Sort(want)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Error(got, want, err)
	}
	for _, a := range []string{"", "x", strings.Repeat("x", 1000)} {
		if _, err := s.LookupAccessor(t.Context(), a); !errors.Is(err, ErrNoAccessor) {
			t.Error(err)
		}
	}
}

// P12: generations are bounded.
func TestDepth(t *testing.T) {
	s, _, root := newStore(t)
	secret := root
	for i := range maxParents + 1 {
		made, err := s.Create(t.Context(), secret, Creation{Path: "auth/token/create"}, Request{})
		if err != nil {
			if i != maxParents {
				t.Errorf("%d: %v", i, err)
			}
			return
		}
		secret = made.Secret
		works(t, s, fmt.Sprint(i), secret, true)
	}
	t.Error("no bound")
}
