package kv

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"pgregory.net/rapid"
)

// vectors are stored formats as they were first written. They never change.
type vectors struct {
	Meta []struct {
		Stored  string
		Shown   json.RawMessage
		Inline  string
		Records []struct {
			Slot              string
			Number, Version   uint64
			Created, Deletion int64
		}
	}
	Data []struct {
		Stored  string
		Created int64
		Object  string
	}
	Keys []struct {
		Path    string
		Escaped string
	}
	Config []struct {
		Stored string
		Config Config
	}
}

func TestVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	must(t, err)
	var v vectors
	must(t, json.Unmarshal(raw, &v))
	if len(v.Meta) < 5 || len(v.Data) < 1 || len(v.Keys) < 5 || len(v.Config) < 2 {
		t.Fatal("vectors are missing")
	}
	for i, c := range v.Meta {
		stored, err := hex.DecodeString(c.Stored)
		must(t, err)
		m, err := decodeMeta(stored)
		must(t, err)
		var want strings.Builder
		must(t, json.NewEncoder(&want).Encode(c.Shown))
		if got, _ := json.Marshal(m.export()); string(got)+"\n" != want.String() {
			t.Errorf("meta %d: %s, want %s", i, got, want.String())
		}
		if string(m.inline) != c.Inline {
			t.Errorf("meta %d: data %q, want %q", i, m.inline, c.Inline)
		}
		for j, r := range c.Records {
			if len(m.records) != len(c.Records) || m.records[j] != (record{r.Slot, r.Number, r.Version, r.Created, r.Deletion}) {
				t.Errorf("meta %d: records %+v, want %+v", i, m.records, c.Records)
			}
		}
		if again := hex.EncodeToString(encodeMeta(m)); again != c.Stored {
			t.Errorf("meta %d is now stored as %s", i, again)
		}
	}
	for i, c := range v.Data {
		stored, err := hex.DecodeString(c.Stored)
		must(t, err)
		created, object, err := decodeData(stored)
		if err != nil || created != c.Created || string(object) != c.Object {
			t.Errorf("data %d: %d, %s, %v", i, created, object, err)
		}
		if again := hex.EncodeToString(encodeData(c.Created, Object(c.Object))); again != c.Stored {
			t.Errorf("data %d is now stored as %s", i, again)
		}
	}
	for _, c := range v.Keys {
		if got := escapePath(c.Path); got != c.Escaped {
			t.Errorf("%q is now stored as %q", c.Path, got)
		}
	}
	for _, c := range v.Config {
		s, view := newStore(t)
		must(t, view.store.Commit(t.Context(), nil, physical.Put(configKey, []byte(c.Stored))))
		got, err := s.Config(t.Context())
		if err != nil || got != c.Config {
			t.Errorf("%s: %+v, %v", c.Stored, got, err)
		}
		must(t, s.UpdateConfig(t.Context(), ConfigUpdate{}, Request{}))
		e, err := view.store.Get(t.Context(), configKey)
		if err != nil || string(e.Value) != c.Stored {
			t.Errorf("config is now stored as %s", e.Value)
		}
	}
}

func drawMeta(t *rapid.T) *metadata {
	m := &metadata{
		oldest: rapid.Uint64Range(0, 5).Draw(t, "oldest"), swept: rapid.Uint64Range(0, 5).Draw(t, "swept"),
		maxVersions: uint64(rapid.Uint32().Draw(t, "max")), casRequired: rapid.Bool().Draw(t, "cas"),
		deleteAfter: time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "after")),
		created:     rapid.Int64().Draw(t, "created"), updated: rapid.Int64().Draw(t, "updated"),
		versions: []version{},
	}
	if n := rapid.IntRange(0, 4).Draw(t, "custom"); n > 0 {
		m.custom = rapid.MapOfN(rapid.String(), rapid.String(), n, n).Draw(t, "pairs")
	}
	for range rapid.IntRange(0, 12).Draw(t, "versions") {
		m.current += rapid.Uint64Range(1, 300).Draw(t, "step")
		m.versions = append(m.versions, version{
			number: m.current, created: rapid.Int64Range(1, 1<<62).Draw(t, "created"),
			deletion: rapid.Int64Range(0, 1<<62).Draw(t, "deletion"), destroyed: rapid.Bool().Draw(t, "destroyed"),
		})
	}
	if rapid.Bool().Draw(t, "inline") {
		m.inline = Object(rapid.StringN(2, 200, -1).Draw(t, "data"))
	}
	for range rapid.IntRange(0, 3).Draw(t, "records") {
		r := record{
			slot: rapid.String().Draw(t, "slot"), number: rapid.Uint64().Draw(t, "number"), version: rapid.Uint64().Draw(t, "version"),
			created: rapid.Int64Range(1, 1<<62).Draw(t, "created"),
		}
		if rapid.Bool().Draw(t, "deleted") {
			r.deletion = r.created + rapid.Int64Range(1, 1<<60).Draw(t, "after")
		}
		m.records = append(m.records, r)
	}
	return m
}

func TestMetaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMeta(t)
		data := encodeMeta(m)
		got, err := decodeMeta(data)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("%+v became %+v, %v", m, got, err)
		}
		for i := range data {
			if _, err := decodeMeta(data[:i]); err == nil {
				t.Fatalf("cut to %d of %d bytes and nobody noticed", i, len(data))
			}
		}
	})
}

// A version deleted in the very instant of its creation is deleted.
func TestDeletedAtOnce(t *testing.T) {
	m, err := decodeMeta(encodeMeta(&metadata{current: 1, versions: []version{{number: 1, created: 5, deletion: 5}}}))
	if err != nil || m.versions[0].deletion != 5 {
		t.Errorf("%+v, %v", m, err)
	}
}

// Every path has a key of its own that every store takes, and its names come back as they were.
func TestPaths(t *testing.T) {
	segment := rapid.OneOf(rapid.SampledFrom([]string{"", ".", "..", "%", "%%", "%2E", "...", "a", "\x7f", "\u0085"}), rapid.String(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 6), func(b []byte) string { return strings.ReplaceAll(string(b), "/", "_") }))
	path := rapid.Map(rapid.SliceOfN(segment, 1, 4), func(s []string) string { return strings.Join(s, "/") })
	rapid.Check(t, func(t *rapid.T) {
		p, q := path.Draw(t, "p"), path.Draw(t, "q")
		e := escapePath(p)
		if err := physical.CheckKey(metaKey(e)); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if err := physical.CheckKey(dataKey(e, 1)); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if (e == escapePath(q)) != (p == q) {
			t.Fatalf("%q and %q both become %q", p, q, e)
		}
		segments := strings.Split(e, "/")
		for i, s := range segments {
			segments[i] = unescapeSegment(s)
		}
		if back := strings.Join(segments, "/"); back != p {
			t.Fatalf("%q came back as %q", p, back)
		}
		if strings.Count(e, "/") != strings.Count(p, "/") {
			t.Fatalf("%q has other segments than %q", e, p)
		}
	})
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add(encodeMeta(&metadata{}))
	f.Add(encodeMeta(&metadata{current: 3, custom: map[string]string{"k": "v"}, versions: []version{{number: 2, created: 7}, {number: 3, created: 9, deletion: 10, destroyed: true}}}))
	f.Add(encodeMeta(&metadata{current: 3, updated: 9, versions: []version{{number: 3, created: 9}}, records: []record{{"n/1/2", 7, 3, 9, 0}, {"n/1/3", 8, 2, 5, 12}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMeta(data)
		if err != nil {
			return
		}
		again, err := decodeMeta(encodeMeta(m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%x: %+v became %+v, %v", data, m, again, err)
		}
		m.add(1, 0, 10)
		m.sweep(10)
	})
}

func FuzzDecodeData(f *testing.F) {
	f.Add(encodeData(7, Object(`{}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		created, object, err := decodeData(data)
		if err == nil && string(encodeData(created, object)) != string(data) {
			t.Fatalf("%x", data)
		}
	})
}

func FuzzMergePatch(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1}}`), []byte(`{"a":{"b":null}}`))
	f.Fuzz(func(t *testing.T, target, patch []byte) {
		if checkObject(target) != nil || checkObject(patch) != nil {
			return
		}
		got, err := mergePatch(target, patch)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkObject(got); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		twice, err := mergePatch(got, patch)
		if err != nil || string(twice) != string(got) {
			t.Fatalf("%s, then %s, %v", got, twice, err)
		}
	})
}
