package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// view is a store in plain that counts reads, and whose commits can be made to fail.
type view struct {
	store physical.Backend

	mu       sync.Mutex
	reads    int
	err      error
	onCommit func(ops []physical.Op, commit func() error) error
	onGet    func(key string)
}

func newView(t testing.TB) *view {
	t.Helper()
	h := memory.NewStore().Open()
	t.Cleanup(func() { _ = h.Close() })
	return &view{store: h}
}

func (v *view) Get(ctx context.Context, key string) (*physical.Entry, error) {
	v.mu.Lock()
	v.reads++
	err, hook := v.err, v.onGet
	v.mu.Unlock()
	if err != nil {
		return nil, err
	}
	e, err := v.store.Get(ctx, key)
	if hook != nil {
		hook(key)
	}
	return e, err
}

func (v *view) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return v.store.List(ctx, prefix, after, limit)
}

func (v *view) Commit(ctx context.Context, ops ...physical.Op) error {
	v.mu.Lock()
	hook := v.onCommit
	v.mu.Unlock()
	commit := func() error { return v.store.Commit(ctx, nil, ops...) }
	if hook != nil {
		return hook(ops, commit)
	}
	return commit()
}

func (v *view) setCommit(f func(ops []physical.Op, commit func() error) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onCommit = f
}

func (v *view) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

// all gives everything stored, by key.
func (v *view) all(t testing.TB) map[string]string {
	t.Helper()
	m := map[string]string{}
	var walk func(prefix string)
	walk = func(prefix string) {
		names, err := v.store.List(t.Context(), prefix, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "/") {
				walk(prefix + name)
				continue
			}
			e, err := v.store.Get(t.Context(), prefix+name)
			if err != nil {
				t.Fatal(err)
			}
			m[prefix+name] = string(e.Value)
		}
	}
	walk("")
	return m
}

var (
	testKey = bytes.Repeat([]byte{3}, 32)
	testNow = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
)

// newStore makes a store with a root token. Its clock is the one of the test's bubble, or goes with testNow.
func newStore(t testing.TB) (*Store, *view, Secret) {
	t.Helper()
	secret, ops, err := NewRootToken(testKey, testNow)
	if err != nil {
		t.Fatal(err)
	}
	v := newView(t)
	if err := v.Commit(context.Background(), ops...); err != nil {
		t.Fatal(err)
	}
	return again(t, v), v, secret
}

// again makes the store of the next leadership.
func again(t testing.TB, v *view) *Store {
	t.Helper()
	s, err := New(v, testKey, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRootToken(t *testing.T) {
	s, e, secret := newStore(t)
	if !strings.HasPrefix(secret.Reveal(), "lcm.") || len(secret) != 4+randomLen {
		t.Errorf("%d characters", len(secret))
	}
	for range 3 {
		tok, err := s.Verify(t.Context(), secret)
		if err != nil || !tok.Root() || tok.Accessor == "" || !tok.CreationTime.Equal(testNow) || tok.TTL != 0 {
			t.Fatalf("%+v, %v", tok, err)
		}
	}
	if e.reads != 1 {
		t.Errorf("%d reads for one token", e.reads)
	}
	s.Reset()
	if _, err := s.Verify(t.Context(), secret); err != nil || e.reads != 2 {
		t.Error(err, e.reads)
	}
	other, _, _ := NewRootToken(testKey, testNow)
	if other == secret {
		t.Error("two tokens are the same")
	}
}

// P8, P9: the store holds nothing that is, or gives, a token.
func TestStoreHoldsNoToken(t *testing.T) {
	s, v, root := newStore(t)
	secrets := []string{root.Reveal()}
	for i := range 3 {
		made := create(t, s, root, Creation{Policies: []string{"default"}}, Request{ID: fmt.Sprint(i), Slot: "node/1/0"})
		secrets = append(secrets, made.Secret.Reveal(), made.Token.Accessor)
	}
	root2, _ := s.Verify(t.Context(), root)
	secrets = append(secrets, root2.Accessor)
	for k, value := range v.all(t) {
		for i, secret := range secrets {
			if isToken := strings.HasPrefix(secret, prefix); strings.Contains(k, strings.TrimPrefix(secret, prefix)) || isToken && strings.Contains(value, secret[4:]) {
				t.Errorf("secret %d shows at %s", i, k)
			}
		}
	}
	otherKey := bytes.Repeat([]byte{4}, 32)
	other, _ := New(v, otherKey, Config{})
	if _, err := other.Verify(t.Context(), root); !errors.Is(err, ErrDenied) {
		t.Error("the hash does not depend on the key", err)
	}
}

func TestDenied(t *testing.T) {
	s, e, secret := newStore(t)
	for _, wrong := range []Secret{"", "x", secret[:len(secret)-1], secret + "x", Secret(strings.ToUpper(string(secret))), Secret(strings.Repeat("x", 1<<20))} {
		if tok, err := s.Verify(t.Context(), wrong); !errors.Is(err, ErrDenied) || tok != nil {
			t.Errorf("%d characters: %v", len(wrong), err)
		}
	}
	if len(s.known) != 0 {
		t.Error("guesses are kept")
	}
	e.fail(physical.ErrUnavailable)
	if _, err := s.Verify(t.Context(), secret); !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	for _, key := range [][]byte{nil, testKey[:31]} {
		if _, err := New(e, key, Config{}); err == nil {
			t.Error("a short key")
		}
		if _, _, err := NewRootToken(key, testNow); err == nil {
			t.Error("a short key")
		}
	}
}

func TestExpiry(t *testing.T) {
	tok := &Token{ExpireTime: testNow.Add(time.Minute)}
	if tok.Expired(testNow.Add(time.Minute-1)) || !tok.Expired(testNow.Add(time.Minute)) || (&Token{CreationTime: testNow}).Expired(testNow.Add(1e6*time.Hour)) {
		t.Error("expires at another time")
	}
}

// The stored formats are frozen.
func TestFormat(t *testing.T) {
	m, _ := newMACs(testKey)
	d := m.sum("lcm.0123456789ABCDEFGHIJKLMNOPQR")
	if got := tokenKey(d); got != "core/token/288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4" {
		t.Error(got)
	}
	if got := m.child("lcm.0123456789ABCDEFGHIJKLMNOPQR", "node/1/2/3"); got != "lcm.U5Mt8Z0mKSr8pxaJkr8WRCemKZvd" {
		t.Error(got.Reveal())
	}
	const first = `{"format":1,"accessor":"acc","display_name":"root","policies":["root"],"path":"auth/token/root","creation_time":"2026-01-02T03:04:05.000000006Z","ttl_ns":60000000000,"parent":"p"}`
	tok, err := parseToken([]byte(first))
	if err != nil {
		t.Fatal(err)
	}
	want := Token{Accessor: "acc", DisplayName: "root", Policies: []string{"root"}, Path: "auth/token/root", CreationTime: testNow, TTL: time.Minute, ExpireTime: testNow.Add(time.Minute)}
	if fmt.Sprint(*tok) != fmt.Sprint(want) {
		t.Errorf("%+v", tok)
	}
	const second = `{"format":2,"accessor":"acc","display_name":"token-x","policies":["a","default"],"path":"auth/token/create","creation_time":"2026-01-02T03:04:05Z","ttl_ns":60000000000,"expire_time":"2026-01-02T03:06:05Z","last_renewal":"2026-01-02T03:05:05Z","renewable":true,"explicit_max_ttl_ns":3600000000000,"period_ns":60000000000,"num_uses":3,"uses":["node/1/2/3"],"meta":{"k":"v"},"parent":"288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4"}`
	if tok, err = parseToken([]byte(second)); err != nil {
		t.Fatal(err)
	}
	if again, err := tok.marshal(); err != nil || string(again) != second || *tok.parent != d {
		t.Errorf("%s, %v", again, err)
	}
	value, _ := (&Token{Accessor: "acc", Policies: []string{"root"}, CreationTime: testNow}).marshal()
	if want := `{"format":2,"accessor":"acc","policies":["root"],"creation_time":"2026-01-02T03:04:05.000000006Z"}`; string(value) != want {
		t.Errorf("%s", value)
	}
	for data, want := range map[string]error{
		`{"format":3}`: ErrNewerFormat, `{}`: ErrDamaged, `x`: ErrDamaged, `{"format":1}`: ErrDamaged,
		`{"format":2,"accessor":"a","parent":"p"}`: ErrDamaged, `{"format":2,"accessor":"a","num_uses":-2}`: ErrDamaged,
	} {
		if _, err := parseToken([]byte(data)); !errors.Is(err, want) {
			t.Errorf("%s: %v", data, err)
		}
	}
	ops, _ := m.store(d, tok)
	keys := ""
	for _, op := range ops {
		keys += op.Key + "\n"
	}
	if want := `core/token/288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4
core/token-accessor/3c239ad84a964fb87176b0c61291fc3c4ea52daf2add7fd4e058e1dd180086d0
core/token-expiry/0000000001c1741a/288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4
core/token-child/288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4/288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4
`; keys != want {
		t.Errorf("keys\n%s", keys)
	}
	if got := string(ops[1].Value); got != `{"format":1,"token":"288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4"}` {
		t.Error(got)
	}
	if got := string(marshalPolicy("a/b", "path \"x\" {}")); got != `{"format":1,"name":"a/b","text":"path \"x\" {}"}` || policyKey("a/b") != "core/policy/a%2Fb" || policyKey("..") != "core/policy/%2E%2E" {
		t.Error(got, policyKey("a/b"), policyKey(".."))
	}
}

func TestSecretHidesItself(t *testing.T) {
	s := Secret("lcm.KKKKKKKK")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", s, "in", struct{ S Secret }{s})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", s, "in", struct{ S Secret }{s})
	encoded, _ := json.Marshal(struct{ S Secret }{s})
	seen := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		seen += fmt.Sprintf(verb, s) + fmt.Sprintf(verb, &s) + fmt.Sprintf(verb, struct{ S Secret }{s})
	}
	for _, leak := range []string{"KKK", "4b4b", "4B4B"} {
		if strings.Contains(seen, leak) {
			t.Errorf("%q shows in %s", leak, seen)
		}
	}
}

// P12: memory stays flat.
func TestKnownIsBounded(t *testing.T) {
	s, _, _ := newStore(t)
	for i := range 2 * maxKnown {
		s.keep(s.macs.sum(Secret(fmt.Sprint(i))), &Token{}, 0)
	}
	if len(s.known) != maxKnown {
		t.Error(len(s.known))
	}
}

func TestConcurrent(t *testing.T) {
	s, _, secret := newStore(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				if _, err := s.Verify(t.Context(), secret); err != nil {
					t.Error(err)
				}
				if _, err := s.Verify(t.Context(), Secret(fmt.Sprint(i))); !errors.Is(err, ErrDenied) {
					t.Error(err)
				}
				if i%50 == 0 {
					s.Reset()
				}
			}
		})
	}
	wg.Wait()
}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte(`{"format":1,"accessor":"a","policies":["root"],"creation_time":"2026-01-02T03:04:05Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := parseToken(data)
		if err != nil {
			return
		}
		if again, err := tok.marshal(); err == nil {
			if _, err := parseToken(again); err != nil {
				t.Fatalf("%s: %v", again, err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s, _, secret := newStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(b.Context(), secret); err != nil {
			b.Fatal(err)
		}
	}
}

func contextWithCancel(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

type ctxType = context.Context
