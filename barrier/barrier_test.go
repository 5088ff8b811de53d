package barrier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

func TestRoundTrip(t *testing.T) {
	s := newSpy(t)
	v := newBarrier(t, s, Options{}).View(nil)
	for _, value := range []string{"", "x", "\x00\xff binary \n", strings.Repeat("long ", 10000)} {
		mustPut(t, v, "a/b", value)
		mustGet(t, v, "a/b", value)
		if raw := s.raw(t, "a/b"); len(raw) != len(value)+Overhead || len(value) > 3 && bytes.Contains(raw, []byte(value)) {
			t.Errorf("%d bytes are stored as %d", len(value), len(raw))
		}
	}
	if _, err := v.Get(t.Context(), "none"); !errors.Is(err, physical.ErrNotFound) {
		t.Error(err)
	}
	mustPut(t, v, "a/c", "1")
	if names, err := v.List(t.Context(), "a/", "", 0); err != nil || fmt.Sprint(names) != "[b c]" {
		t.Errorf("%v, %v", names, err)
	}
	if err := v.Commit(t.Context(), physical.Delete("a/b"), physical.Put("a/d", nil)); err != nil {
		t.Error(err)
	}
	mustGet(t, v, "a/d", "")
}

// P8: the same value is never the same ciphertext.
func TestNoncesAreFresh(t *testing.T) {
	s := newSpy(t)
	v := newBarrier(t, s, Options{}).View(nil)
	mustPut(t, v, "a", "same")
	first := s.raw(t, "a")
	mustPut(t, v, "a", "same")
	if second := s.raw(t, "a"); bytes.Equal(first[nonceAt:bodyAt], second[nonceAt:bodyAt]) {
		t.Error("one nonce twice")
	}
}

// P8: a copied, swapped or tampered entry is refused.
func TestTamperedEntriesAreRefused(t *testing.T) {
	s := newSpy(t)
	b := newBarrier(t, s, Options{})
	v := b.View(nil)
	mustPut(t, v, "a", "value of a")
	mustPut(t, v, "b", "value of b")
	a, bb := s.raw(t, "a"), s.raw(t, "b")
	refused := func(what string, want error) {
		t.Helper()
		if e, err := v.Get(t.Context(), "a"); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", what, e, err)
		}
	}
	s.put(t, "a", bb)
	refused("swapped", ErrTampered)
	s.put(t, "c", a)
	if _, err := v.Get(t.Context(), "c"); !errors.Is(err, ErrTampered) {
		t.Errorf("copied: %v", err)
	}
	for i := 1; i < len(a); i++ {
		bad := bytes.Clone(a)
		bad[i] ^= 0x40
		s.put(t, "a", bad)
		refused(fmt.Sprintf("byte %d changed", i), ErrTampered)
	}
	for n := range len(a) {
		s.put(t, "a", a[:n])
		refused(fmt.Sprintf("cut to %d bytes", n), ErrTampered)
	}
	s.put(t, "a", append(bytes.Clone(a), 0))
	refused("longer", ErrTampered)
	s.put(t, "a", s.raw(t, KeyKeyring))
	refused("the keyring", ErrTampered)
	newer := bytes.Clone(a)
	newer[0] = 2
	s.put(t, "a", newer)
	refused("newer", ErrNewerFormat)
	if _, err := v.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "format 2, this build knows 1") {
		t.Error(err)
	}
	s.put(t, "a", a)
	mustGet(t, v, "a", "value of a")
}

func TestSealUnseal(t *testing.T) {
	s := newSpy(t)
	ctx := t.Context()
	b := New(s, Options{})
	v := b.View(nil)
	if err := b.Unseal(ctx, testRoot); !errors.Is(err, ErrNotInitialized) {
		t.Error(err)
	}
	if ok, err := b.Initialized(ctx); ok || err != nil {
		t.Error(ok, err)
	}
	if err := b.Initialize(ctx, testRoot, physical.Put(KeySealConfig, []byte("plain")), physical.Put("core/x", []byte("sealed"))); err != nil {
		t.Fatal(err)
	}
	if err := b.Initialize(ctx, testRoot); !errors.Is(err, ErrInitialized) {
		t.Error(err)
	}
	if !b.Sealed() {
		t.Error("initialize unsealed it")
	}
	sealed := func() {
		t.Helper()
		_, err1 := v.Get(ctx, "core/x")
		_, err2 := v.List(ctx, "", "", 0)
		_, err3 := b.DeriveKey("x")
		_, err4 := b.KeyStatus()
		for i, err := range []error{err1, err2, err3, err4, v.Commit(ctx, physical.Put("y", nil)), b.Rotate(ctx, nil), b.ReloadKeyring(ctx)} {
			if !errors.Is(err, ErrSealed) {
				t.Errorf("sealed, call %d: %v", i, err)
			}
		}
		if value, err := b.GetPlain(ctx, KeySealConfig); err != nil || string(value) != "plain" {
			t.Errorf("%q, %v", value, err)
		}
	}
	sealed()
	other := bytes.Clone(testRoot)
	other[0]++
	for _, k := range [][]byte{other, nil, testRoot[:16], append(bytes.Clone(testRoot), 1)} {
		if err := b.Unseal(ctx, k); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%d bytes: %v", len(k), err)
		}
	}
	sealed()
	if err := b.Unseal(ctx, testRoot); err != nil {
		t.Fatal(err)
	}
	if err := b.Unseal(ctx, other); !errors.Is(err, ErrWrongKey) || b.Sealed() {
		t.Error("a wrong key sealed it", err)
	}
	if err := b.Unseal(ctx, testRoot); err != nil {
		t.Fatal(err)
	}
	mustGet(t, v, "core/x", "sealed")
	k := b.state.Load()
	b.Seal()
	b.Seal()
	sealed()
	if !bytes.Equal(k.root, make([]byte, KeySize)) || !bytes.Equal(k.ring.Keys[0].Key, make([]byte, KeySize)) {
		t.Error("keys were not wiped")
	}
	if bytes.Equal(testRoot, make([]byte, KeySize)) {
		t.Error("the caller's key was wiped")
	}
	if err := b.Unseal(ctx, testRoot); err != nil {
		t.Fatal(err)
	}
	mustGet(t, v, "core/x", "sealed")
}

// P8: the keyring is sealed like all else, and bound to its place.
func TestKeyringIsGuarded(t *testing.T) {
	s := newSpy(t)
	ctx := t.Context()
	b := newBarrier(t, s, Options{})
	good := s.raw(t, KeyKeyring)
	aead, _ := newAEAD(testRoot)
	for name, c := range map[string]struct {
		stored []byte
		want   error
	}{
		"changed":      {append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), ErrWrongKey},
		"cut":          {good[:20], ErrTampered},
		"of a term":    {sealEntry(aead, 1, KeyKeyring, []byte(`{}`)), ErrTampered},
		"other place":  {sealEntry(aead, 0, "core/other", []byte(`{}`)), ErrWrongKey},
		"newer entry":  {append([]byte{2}, good[1:]...), ErrNewerFormat},
		"newer":        {sealEntry(aead, 0, KeyKeyring, []byte(`{"format":2,"keys":{}}`)), ErrTampered},
		"newer format": {sealEntry(aead, 0, KeyKeyring, []byte(`{"format":2}`)), ErrNewerFormat},
		"no keys":      {sealEntry(aead, 0, KeyKeyring, []byte(`{"format":1}`)), ErrTampered},
		"no JSON":      {sealEntry(aead, 0, KeyKeyring, []byte(`secret`)), ErrTampered},
	} {
		s.put(t, KeyKeyring, c.stored)
		if err := b.ReloadKeyring(ctx); !errors.Is(err, c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.put(t, KeyKeyring, sealEntry(aead, 0, KeyKeyring, []byte(`{"format":2}`)))
	if err := b.ReloadKeyring(ctx); err == nil || !strings.Contains(err.Error(), "format 2, this build knows 1") {
		t.Error(err)
	}
}

func TestReservedEntries(t *testing.T) {
	s := newSpy(t)
	ctx := t.Context()
	b := newBarrier(t, s, Options{})
	v := b.View(nil)
	for _, key := range []string{KeyKeyring, KeySealConfig, KeyRootKey} {
		_, err := v.Get(ctx, key)
		for i, err := range []error{err, v.Commit(ctx, physical.Put(key, nil)), v.Commit(ctx, physical.Put("a", nil), physical.Delete(key)),
			v.Commit(ctx, physical.RequireAbsent(key)), b.Rotate(ctx, nil, physical.Delete(key))} {
			if !errors.Is(err, ErrReserved) {
				t.Errorf("%s, call %d: %v", key, i, err)
			}
		}
	}
	if _, err := b.GetPlain(ctx, KeyKeyring); !errors.Is(err, ErrReserved) {
		t.Error(err)
	}
	if err := b.CommitPlain(ctx, nil, physical.Put(KeyKeyring, nil)); !errors.Is(err, ErrReserved) {
		t.Error(err)
	}
	if err := b.CommitPlain(ctx, nil, physical.Put(KeySealConfig, []byte("c")), physical.Put(KeyRootKey, []byte("k")), physical.Put("slot", []byte("s"))); err != nil {
		t.Fatal(err)
	}
	if c, err := b.GetPlain(ctx, KeySealConfig); err != nil || string(c) != "c" || string(s.raw(t, KeyRootKey)) != "k" {
		t.Error(err)
	}
	mustGet(t, v, "slot", "s")
	b.Seal()
	if err := b.CommitPlain(ctx, nil, physical.Put(KeySealConfig, []byte("d"))); err != nil {
		t.Error(err)
	}
	if err := b.CommitPlain(ctx, nil, physical.Put("slot", nil)); !errors.Is(err, ErrSealed) {
		t.Error(err)
	}
}

func TestConditions(t *testing.T) {
	v := newBarrier(t, newSpy(t), Options{}).View(nil)
	ctx := t.Context()
	mustPut(t, v, "a", "1")
	if err := v.Commit(ctx, physical.RequireValue("a", []byte("1")), physical.Put("a", []byte("2"))); err != nil {
		t.Error(err)
	}
	for _, op := range []physical.Op{physical.RequireValue("a", []byte("1")), physical.RequireValue("none", nil), physical.RequireAbsent("a")} {
		if err := v.Commit(ctx, op, physical.Put("b", nil)); !errors.Is(err, physical.ErrConflict) {
			t.Errorf("%d: %v", op.Kind, err)
		}
	}
	if err := v.Commit(ctx, physical.RequireAbsent("b"), physical.Put("b", []byte("3"))); err != nil {
		t.Error(err)
	}
	mustGet(t, v, "a", "2")
	mustGet(t, v, "b", "3")

	var wg sync.WaitGroup // one of many who saw the same value wins
	var mu sync.Mutex
	won := 0
	for i := range 20 {
		wg.Go(func() {
			err := v.Commit(ctx, physical.RequireValue("a", []byte("2")), physical.Put("a", fmt.Append(nil, "by ", i)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, physical.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

// P1: the fence of the view goes with every commit, the keyring's own included.
func TestFence(t *testing.T) {
	s := newSpy(t)
	ctx := t.Context()
	b := newBarrier(t, s, Options{})
	mustPut(t, b.View(nil), "a", "1")
	first := physical.Fence{Lineage: "l", Term: 1, Nonce: [16]byte{1}}
	if err := s.RaiseFence(ctx, physical.Fence{}, first); err != nil {
		t.Fatal(err)
	}
	if err := b.View(nil).Commit(ctx, physical.Put("a", nil)); !errors.Is(err, physical.ErrFenced) {
		t.Error(err)
	}
	mustPut(t, b.View(&first), "a", "2")
	second := physical.Fence{Lineage: "l", Term: 2, Nonce: [16]byte{2}}
	if err := s.RaiseFence(ctx, first, second); err != nil {
		t.Fatal(err)
	}
	if err := b.View(&first).Commit(ctx, physical.Put("a", nil)); !errors.Is(err, physical.ErrFenced) {
		t.Error(err)
	}
	if err := b.Rotate(ctx, &first); !errors.Is(err, physical.ErrFenced) {
		t.Error(err)
	}
	late := newBarrier(t, s, Options{}) // it must reserve first, and is refused there too
	if err := late.View(&first).Commit(ctx, physical.Put("a", nil)); !errors.Is(err, physical.ErrFenced) {
		t.Error(err)
	}
	mustGet(t, late.View(&first), "a", "2")
	if err := b.Initialize(ctx, testRoot); !errors.Is(err, physical.ErrFenced) && !errors.Is(err, ErrInitialized) {
		t.Error(err)
	}
}

func TestLimitsAreTheUsers(t *testing.T) {
	v := newBarrier(t, newSpy(t, physical.Caps{MaxValue: 1000, MaxCommit: 2000, MaxOps: 4, MaxKey: 20}), Options{}).View(nil)
	ctx := t.Context()
	if v.MaxValue() != 1000-Overhead || v.Caps().MaxValue != v.MaxValue() {
		t.Error(v.MaxValue())
	}
	big := make([]byte, v.MaxValue())
	if err := v.Commit(ctx, physical.Put("a", big)); err != nil {
		t.Error(err)
	}
	tooLarge := func(want physical.TooLargeError, ops ...physical.Op) {
		t.Helper()
		var got *physical.TooLargeError
		if err := v.Commit(ctx, ops...); !errors.As(err, &got) || *got != want {
			t.Errorf("%v, want %v", err, &want)
		}
	}
	tooLarge(physical.TooLargeError{What: "value", Key: "a", Size: len(big) + 1, Limit: len(big)}, physical.Put("a", append(big, 0)))
	tooLarge(physical.TooLargeError{What: "bytes in a commit", Size: 3 + 2*900 + 150, Limit: 2000 - 3*Overhead},
		physical.Put("a", big[:900]), physical.Put("b", big[:900]), physical.Put("c", big[:150]))
	tooLarge(physical.TooLargeError{What: "ops in a commit", Size: 5, Limit: 4},
		physical.Delete("a"), physical.Delete("b"), physical.Delete("c"), physical.Delete("d"), physical.Delete("e"))
	if v := newBarrier(t, newSpy(t, physical.Caps{}), Options{}).View(nil); v.MaxValue() < 0 {
		t.Error(v.MaxValue())
	}
}

func TestDeriveKey(t *testing.T) {
	b := newBarrier(t, newSpy(t), Options{})
	one, err := b.DeriveKey("join")
	if err != nil || len(one) != KeySize {
		t.Fatal(err)
	}
	two, _ := b.DeriveKey("tokens")
	again, _ := Derive(testRoot, "join")
	if bytes.Equal(one, two) || !bytes.Equal(one, again) || bytes.Equal(one, testRoot) {
		t.Error("derived keys are not what they should be")
	}
	if _, err := Derive([]byte("short"), "join"); !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
}

func TestObserver(t *testing.T) {
	ops := map[string]int{}
	rotated := 0
	b := newBarrier(t, newSpy(t), Options{Observer: Observer{
		Operation: func(op string, took time.Duration, err error) {
			if took < 0 || (err != nil) != (op == "get") {
				t.Errorf("%s: %v, %v", op, took, err)
			}
			ops[op]++
		},
		Rotated: func(term uint32, automatic bool) {
			if term != 2 || automatic {
				t.Error(term, automatic)
			}
			rotated++
		},
	}})
	v := b.View(nil)
	mustPut(t, v, "a", "1")
	_, _ = v.Get(t.Context(), "none")
	_, _ = v.List(t.Context(), "", "", 0)
	if err := b.Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(ops) != "map[commit:1 get:1 list:1]" || rotated != 1 {
		t.Errorf("%v, %d", ops, rotated)
	}
}

func FuzzEntry(f *testing.F) {
	aead, _ := newAEAD(testRoot)
	genuine := binary.BigEndian.AppendUint32([]byte{entryFormat}, 1)
	genuine = append(genuine, make([]byte, nonceSize)...) // the same in every process that fuzzes
	genuine = aead.Seal(genuine, genuine[nonceAt:], []byte("v"), []byte("a"))
	f.Add(bytes.Clone(genuine))
	f.Add([]byte{})
	f.Add(binary.BigEndian.AppendUint64([]byte{1}, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole := bytes.Clone(data)
		if _, err := entryTerm("a", data); err != nil {
			return
		}
		// The term stands outside the ciphertext: it chooses the key, and only the right one opens it.
		if value, err := openEntry(aead, "a", bytes.Clone(data)); err == nil && (!bytes.Equal(whole[nonceAt:], genuine[nonceAt:]) || string(value) != "v") {
			t.Fatalf("forged %x", whole)
		}
	})
}

func FuzzKeyring(f *testing.F) {
	f.Add([]byte(`{"format":1,"keys":[{"term":1,"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","install_time":"2026-01-02T03:04:05Z","encryptions":7}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parseKeyring(data)
		if err != nil {
			return
		}
		again, err := k.marshal()
		if err != nil {
			t.Skip("a time that JSON cannot hold")
		}
		k2, err := parseKeyring(again)
		if err != nil || len(k2.Keys) != len(k.Keys) || k2.last().Term != k.last().Term {
			t.Fatalf("%s: %v", data, err)
		}
	})
}
