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
)

// entries is a store that counts reads.
type entries struct {
	mu    sync.Mutex
	m     map[string][]byte
	reads int
	err   error
}

func (e *entries) Get(_ context.Context, key string) (*physical.Entry, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reads++
	if e.err != nil {
		return nil, e.err
	}
	v, ok := e.m[key]
	if !ok {
		return nil, physical.ErrNotFound
	}
	return &physical.Entry{Key: key, Value: bytes.Clone(v)}, nil
}

var (
	testKey = bytes.Repeat([]byte{3}, 32)
	testNow = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
)

func newStore(t *testing.T) (*Store, *entries, Secret) {
	t.Helper()
	secret, op, err := NewRootToken(testKey, testNow)
	if err != nil {
		t.Fatal(err)
	}
	e := &entries{m: map[string][]byte{op.Key: op.Value}}
	s, err := New(e, testKey)
	if err != nil {
		t.Fatal(err)
	}
	return s, e, secret
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
	_, e, secret := newStore(t)
	for k, v := range e.m {
		if strings.Contains(k+string(v), secret.Reveal()) || strings.Contains(k+string(v), secret.Reveal()[4:]) {
			t.Errorf("%s: %s", k, v)
		}
		if len(k) != len("core/token/")+64 {
			t.Error(k)
		}
	}
	otherKey := bytes.Repeat([]byte{4}, 32)
	s, _ := New(e, otherKey)
	if _, err := s.Verify(t.Context(), secret); !errors.Is(err, ErrDenied) {
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
	e.err = physical.ErrUnavailable
	if _, err := s.Verify(t.Context(), secret); !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	for _, key := range [][]byte{nil, testKey[:31]} {
		if _, err := New(e, key); err == nil {
			t.Error("a short key")
		}
		if _, _, err := NewRootToken(key, testNow); err == nil {
			t.Error("a short key")
		}
	}
}

func TestExpiry(t *testing.T) {
	tok := &Token{CreationTime: testNow, TTL: time.Minute}
	if tok.Expired(testNow.Add(time.Minute-1)) || !tok.Expired(testNow.Add(time.Minute)) || (&Token{CreationTime: testNow}).Expired(testNow.Add(1e6*time.Hour)) {
		t.Error("expires at another time")
	}
	s, e, secret := newStore(t)
	short := &Token{Accessor: "a", CreationTime: testNow, TTL: time.Minute}
	value, _ := short.marshal()
	for k := range e.m {
		e.m[k] = value
	}
	s.now = func() time.Time { return testNow }
	if _, err := s.Verify(t.Context(), secret); err != nil {
		t.Error(err)
	}
	s.now = func() time.Time { return testNow.Add(time.Hour) }
	if _, err := s.Verify(t.Context(), secret); !errors.Is(err, ErrDenied) {
		t.Error("it runs out in memory too", err)
	}
}

// The stored format is frozen.
func TestFormat(t *testing.T) {
	m, _ := newMACs(testKey)
	if got := entryKey(m.sum("lcm.0123456789ABCDEFGHIJKLMNOPQR")); got != "core/token/288cb676e9edd918c19eb347b3b9a4edabd55c3e3ca40900a4cb122163fe87a4" {
		t.Error(got)
	}
	const stored = `{"format":1,"accessor":"acc","display_name":"root","policies":["root"],"path":"auth/token/root","creation_time":"2026-01-02T03:04:05.000000006Z","ttl_ns":60000000000,"parent":"p"}`
	tok, err := parseToken([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	want := Token{Accessor: "acc", DisplayName: "root", Policies: []string{"root"}, Path: "auth/token/root", CreationTime: testNow, TTL: time.Minute, Parent: "p"}
	if fmt.Sprint(*tok) != fmt.Sprint(want) {
		t.Errorf("%+v", tok)
	}
	if again, err := tok.marshal(); err != nil || string(again) != stored {
		t.Errorf("%s, %v", again, err)
	}
	for data, want := range map[string]error{`{"format":2}`: ErrNewerFormat, `{}`: ErrDamaged, `x`: ErrDamaged, `{"format":1}`: ErrDamaged} {
		if _, err := parseToken([]byte(data)); !errors.Is(err, want) {
			t.Errorf("%s: %v", data, err)
		}
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
		s.keep(s.macs.sum(Secret(fmt.Sprint(i))), &Token{})
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
	secret, op, _ := NewRootToken(testKey, testNow)
	s, _ := New(&entries{m: map[string][]byte{op.Key: op.Value}}, testKey)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(b.Context(), secret); err != nil {
			b.Fatal(err)
		}
	}
}
