package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vectors are stored formats as they were first written. They never change: what an old version wrote stays
// readable for ever.
type vectors struct {
	Wraps []struct {
		Seal, Key, Plain, Blob string
	}
	Shamir []struct {
		Secret, Random    string
		Shares, Threshold int
		Out               []string
	}
	Configs []struct {
		Stored string
		Config Config
	}
}

func loadVectors(t *testing.T) (v vectors) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	v := loadVectors(t)
	if len(v.Wraps) < 2 || len(v.Shamir) < 3 || len(v.Configs) < 2 {
		t.Fatal("vectors are missing")
	}
	for i, w := range v.Wraps {
		k, err := ParseKey([]byte(w.Key))
		if err != nil {
			t.Fatal(err)
		}
		s := map[string]func(Key) Seal{TypeStatic: NewStatic, TypeShamir: NewShamir}[w.Seal](k)
		plain, err := s.Unwrap(t.Context(), unhex(t, w.Blob))
		if err != nil || hex.EncodeToString(plain) != w.Plain {
			t.Errorf("wrap %d: %x, %v", i, plain, err)
		}
	}
	for i, w := range v.Shamir {
		shares, err := split(bytes.NewReader(unhex(t, w.Random)), unhex(t, w.Secret), w.Shares, w.Threshold)
		if err != nil {
			t.Fatal(err)
		}
		for j, s := range shares {
			if hex.EncodeToString(s) != w.Out[j] {
				t.Errorf("shamir %d: share %d is %s, want %s", i, j, hex.EncodeToString(s), w.Out[j])
			}
		}
		got, err := Combine(shares[:w.Threshold])
		if err != nil || hex.EncodeToString(got) != w.Secret {
			t.Errorf("shamir %d: combined to %x, %v", i, got, err)
		}
	}
	for i, w := range v.Configs {
		got, err := ParseConfig([]byte(w.Stored))
		if err != nil || got != w.Config {
			t.Errorf("config %d: %+v, %v", i, got, err)
		}
		if data, err := w.Config.Marshal(); err != nil || string(data) != w.Stored {
			t.Errorf("config %d is now stored as %s, %v", i, data, err)
		}
	}
}

// P8: what lies in the store can be opened only by its own key, and only unchanged.
func TestWrap(t *testing.T) {
	ctx := t.Context()
	key, plain := NewKey(), []byte("the root key")
	s := NewStatic(key)
	blob, err := s.Wrap(ctx, plain)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := s.Wrap(ctx, plain); bytes.Equal(again, blob) {
		t.Error("two wraps are the same")
	}
	if got, err := s.Unwrap(ctx, blob); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := NewStatic(NewKey()).Unwrap(ctx, blob); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := NewShamir(key).Unwrap(ctx, blob); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another seal: %v", err)
	}
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1
		if _, err := s.Unwrap(ctx, bad); err == nil {
			t.Errorf("byte %d changed and nobody noticed", i)
		}
	}
	for i := range blob {
		if _, err := s.Unwrap(ctx, blob[:i]); err == nil {
			t.Errorf("cut to %d bytes and nobody noticed", i)
		}
	}
	newer := bytes.Clone(blob)
	newer[0] = 2
	if _, err := s.Unwrap(ctx, newer); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "format 2, this build knows 1") {
		t.Errorf("newer format: %v", err)
	}
}

func TestParseKey(t *testing.T) {
	want := NewKey()
	for name, text := range map[string]string{
		"raw":              string(want[:]),
		"raw, newline":     string(want[:]) + "\n",
		"hex":              hex.EncodeToString(want[:]),
		"hex, newline":     hex.EncodeToString(want[:]) + "\n",
		"HEX":              strings.ToUpper(hex.EncodeToString(want[:])),
		"base64":           base64.StdEncoding.EncodeToString(want[:]) + "\r\n",
		"base64, raw":      base64.RawStdEncoding.EncodeToString(want[:]),
		"base64, url":      base64.URLEncoding.EncodeToString(want[:]),
		"base64, raw, url": base64.RawURLEncoding.EncodeToString(want[:]),
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadKeyFile(path); err != nil || got != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "short", strings.Repeat("x", 31), strings.Repeat("x", 64), strings.Repeat("secret", 1000)} {
		if _, err := ParseKey([]byte(text)); !errors.Is(err, ErrMalformed) || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
	t.Setenv("LOCUM_TEST_KEY", hex.EncodeToString(want[:]))
	if got, err := ReadKeyEnv("LOCUM_TEST_KEY"); err != nil || got != want {
		t.Error(err)
	}
	if _, err := ReadKeyEnv("LOCUM_TEST_NO_KEY"); err == nil {
		t.Error("a key from nowhere")
	}
	if _, err := ReadKeyFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestKeyHidesItself(t *testing.T) {
	var k Key
	copy(k[:], bytes.Repeat([]byte("K"), KeySize))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "in", struct{ K Key }{k})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "in", struct{ K Key }{k})
	encoded, _ := json.Marshal(struct{ K Key }{k})
	seen := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		seen += fmt.Sprintf(verb, k) + fmt.Sprintf(verb, &k) + fmt.Sprintf(verb, struct{ K Key }{k})
	}
	for _, leak := range []string{"KKK", "4b4b", "4B4B", "75 75", "0x4b"} {
		if strings.Contains(seen, leak) {
			t.Errorf("%q shows in %s", leak, seen)
		}
	}
	k.Wipe()
	if !k.IsZero() {
		t.Error("not wiped")
	}
}

func TestCollector(t *testing.T) {
	key := NewKey()
	shares, err := Split(key[:], 5, 3)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCollector(5, 3)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Progress(); p != (Progress{Shares: 5, Threshold: 3}) {
		t.Errorf("%+v", p)
	}
	add := func(s Share, want error, done bool) Key {
		t.Helper()
		k, ok, err := c.Add(s)
		if !errors.Is(err, want) || ok != done {
			t.Fatalf("%v, %v", ok, err)
		}
		return k
	}
	add(shares[4], nil, false)
	nonce := c.Progress().Nonce
	if len(nonce) != 36 {
		t.Errorf("nonce %q", nonce)
	}
	add(shares[4], ErrDuplicateShare, false)
	other := append(Share(nil), shares[4]...)
	other[0] ^= 1
	add(other, ErrMixedShares, false)
	add(Share{1, 2, 3}, ErrMalformed, false)
	add(append(make(Share, KeySize), 6), ErrMalformed, false)
	add(shares[0], nil, false)
	if p := c.Progress(); p.Given != 2 || p.Nonce != nonce {
		t.Errorf("%+v", p)
	}
	if add(shares[2], nil, true) != key {
		t.Error("another key")
	}
	if p := c.Progress(); p.Given != 0 || p.Nonce != "" {
		t.Errorf("%+v", p)
	}
	add(shares[1], nil, false)
	c.Reset()
	if p := c.Progress(); p.Given != 0 || p.Nonce != "" {
		t.Errorf("%+v", p)
	}
	if _, err := NewCollector(3, 1); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestConfigRefuses(t *testing.T) {
	for stored, want := range map[string]error{
		``:               ErrMalformed,
		`{}`:             ErrMalformed,
		`{"format":1}`:   ErrMalformed,
		`{"format":"1"}`: ErrMalformed,
		`{"format":1,"type":"shamir","shares":3,"threshold":4}`: ErrMalformed,
		`{"format":1,"type":"static","shares":3,"threshold":2}`: ErrMalformed,
		`{"format":1,"type":"other"}`:                           ErrMalformed,
		`{"format":2,"type":"other"}`:                           ErrNewerFormat,
	} {
		if _, err := ParseConfig([]byte(stored)); !errors.Is(err, want) {
			t.Errorf("%s: %v", stored, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"format":1,"type":"shamir","shares":5,"threshold":3}`))
	f.Add([]byte(`{"format":1,"type":"static"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		again, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if c2, err := ParseConfig(again); err != nil || c2 != c {
			t.Fatalf("%s: %+v, %v", data, c2, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(strings.Repeat("ab", 32)))
	f.Add(make([]byte, 33))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKey(data)
		if err != nil {
			return
		}
		if k2, err := ParseKey([]byte(hex.EncodeToString(k[:]))); err != nil || k2 != k {
			t.Fatal("does not survive")
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	s := newKeySeal(TypeStatic, Key{1}).(*keySeal)
	blob := append([]byte{wrapFormat}, make([]byte, nonceSize)...) // the same in every process that fuzzes
	blob = s.aead.Seal(blob, blob[1:], []byte("x"), s.aad())
	f.Add(blob)
	f.Add([]byte{})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := s.Unwrap(t.Context(), data); err == nil && !bytes.Equal(data, blob) {
			t.Fatal("forged")
		}
	})
}
