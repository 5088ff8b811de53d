package kv_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/kv"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

func newSealed(t testing.TB, limits physical.Caps) (*kv.Store, *memory.Handle) {
	t.Helper()
	h := memory.NewStore(memory.WithLimits(limits)).Open()
	t.Cleanup(func() { _ = h.Close() })
	b := barrier.New(h, barrier.Options{})
	root := make([]byte, barrier.KeySize)
	if err := b.Initialize(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if err := b.Unseal(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	return kv.New(b.View(nil)), h
}

// P8: of an entry the store sees the path and ciphertext; nothing of the data, of metadata or of answers.
func TestStoreSeesCiphertext(t *testing.T) {
	s, h := newSealed(t, physical.Caps{})
	ctx := t.Context()
	const planted = "planted-secret"
	for i := range 3 {
		_, err := s.Write(ctx, "app/db", kv.Object(`{"password":"`+planted+`"}`), kv.WriteOptions{Request: kv.Request{ID: planted, Slot: "n/1/1"}})
		if err != nil {
			t.Fatal(i, err)
		}
		if err := s.UpdateMetadata(ctx, "app/db", kv.MetadataUpdate{CustomMetadata: map[string]string{"k": planted}}, kv.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	var walk func(prefix string) int
	walk = func(prefix string) (n int) {
		names, err := h.List(ctx, prefix, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "/") {
				n += walk(prefix + name)
				continue
			}
			e, err := h.Get(ctx, prefix+name)
			if err != nil {
				t.Fatal(err)
			}
			n++
			if bytes.Contains(e.Value, []byte(planted)) || bytes.Contains(e.Value, []byte("password")) {
				t.Errorf("%s holds it in plain", e.Key)
			}
		}
		return n
	}
	if n := walk(""); n != 5 { // keyring, slot, metadata with one version, two versions
		t.Errorf("%d entries", n)
	}
	secret, err := s.Read(ctx, "app/db", 0)
	if err != nil || !strings.Contains(string(secret.Data), planted) || secret.Metadata.CustomMetadata["k"] != planted {
		t.Errorf("%+v, %v", secret, err)
	}
}

// P8: one version's data in the place of another's, or of another path's, are refused.
func TestSwappedVersions(t *testing.T) {
	s, h := newSealed(t, physical.Caps{})
	ctx := t.Context()
	long := kv.Object(`{"v":"` + strings.Repeat("x", 4096) + `"}`) // an entry of its own
	for _, p := range []string{"a", "a", "b"} {
		if _, err := s.Write(ctx, p, long, kv.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	old, err := h.Get(ctx, "kv/data/a/1")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Commit(ctx, nil, physical.Put("kv/data/a/2", old.Value), physical.Put("kv/data/b/1", old.Value)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a", "b"} {
		if secret, err := s.Read(ctx, p, 0); err == nil {
			t.Errorf("%s: %+v", p, secret)
		}
	}
}

func benchObject() kv.Object {
	return kv.Object(`{"value":"` + strings.Repeat("x", 1024) + `"}`)
}

func BenchmarkWrite(b *testing.B) {
	s, _ := newSealed(b, physical.Caps{})
	object := benchObject()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(b.Context(), "app/db", object, kv.WriteOptions{Request: kv.Request{ID: "id", Slot: "n/1/1"}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	s, _ := newSealed(b, physical.Caps{})
	for range 12 {
		if _, err := s.Write(b.Context(), "app/db", benchObject(), kv.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Read(b.Context(), "app/db", 0); err != nil {
			b.Fatal(err)
		}
	}
}
