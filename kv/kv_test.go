package kv

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"pgregory.net/rapid"
)

func TestWriteAndRead(t *testing.T) {
	s, _ := newStore(t)
	if got := read(t, s, "app/db", 0); got != ErrNotFound.Error() {
		t.Error(got)
	}
	for i, data := range []string{`{"a":1}`, `{"a":12345678901234567890.10,"b":"<&>"}`, ` { } `} {
		m := write(t, s, "app/db", data)
		if m.Version != uint64(i+1) || m.CreatedTime.IsZero() || !m.DeletionTime.IsZero() || m.Destroyed {
			t.Errorf("%+v", m)
		}
		if got := read(t, s, "app/db", 0); got != data {
			t.Errorf("%s was read as %s", data, got)
		}
	}
	if got := read(t, s, "app/db", 1); got != `{"a":1}` {
		t.Error(got)
	}
	if got := read(t, s, "app/db", 4); got != ErrNotFound.Error() {
		t.Error(got)
	}
	write(t, s, "app", `{"other":1}`)
	if got := read(t, s, "app/db", 2) + read(t, s, "app", 1); got != `{"a":12345678901234567890.10,"b":"<&>"}{"other":1}` {
		t.Error(got)
	}
}

func TestInvalidRequests(t *testing.T) {
	s, v := newStore(t)
	ctx := t.Context()
	write(t, s, "p", `{}`)
	before := len(keys(t, v, ""))
	writeErr := func(path, data string) error {
		_, err := s.Write(ctx, path, Object(data), WriteOptions{})
		return err
	}
	patchErr := func(path, data string) error {
		_, err := s.Patch(ctx, path, Object(data), WriteOptions{})
		return err
	}
	for i, c := range []struct {
		err  error
		want string
	}{
		{writeErr("", `{}`), "missing path"},
		{writeErr("a/", `{}`), "cannot write to a path ending in '/'"},
		{writeErr("a", ``), "no data provided"},
		{writeErr("a", `null`), "no data provided"},
		{writeErr("a", `[]`), "data must be a JSON object"},
		{writeErr("a", `{"a":}`), "data is not valid JSON"},
		{writeErr("a", `{} {}`), "data is not valid JSON"},
		{patchErr("", `{}`), "missing path"},
		{patchErr("p", ``), "no data provided"},
		{s.Delete(ctx, "p", nil, Request{}), "No version number provided"},
		{s.Undelete(ctx, "p", nil, Request{}), "No version number provided"},
		{s.Destroy(ctx, "p", nil, Request{}), "No version number provided"},
		{s.Destroy(ctx, "", []uint64{1}, Request{}), "missing path"},
		{s.DeleteLatest(ctx, "", Request{}), "missing path"},
		{s.DeleteMetadata(ctx, "", Request{}), "missing path"},
		{s.UpdateMetadata(ctx, "", MetadataUpdate{}, Request{}), "missing path"},
		{s.UpdateMetadata(ctx, "p", MetadataUpdate{MaxVersions: ptr(-1)}, Request{}), "max_versions must be between 0 and 4294967295"},
		{s.UpdateMetadata(ctx, "p", MetadataUpdate{DeleteVersionAfter: ptr(-time.Second)}, Request{}), "delete_version_after must not be negative"},
		{s.UpdateMetadata(ctx, "p", MetadataUpdate{CustomMetadata: map[string]string{"": "v"}}, Request{}), `custom_metadata validation failed: length of key "" is 0 but must be 0 < len(key) <= 128`},
		{s.UpdateMetadata(ctx, "p", MetadataUpdate{CustomMetadata: map[string]string{"k": ""}}, Request{}), `custom_metadata validation failed: length of value for key "k" is 0 but must be 0 < len(value) <= 512`},
		{s.PatchMetadata(ctx, "p", MetadataPatch{CustomMetadata: map[string]*string{"k": ptr("a\x00")}}, Request{}), `custom_metadata validation failed: value for key "k" contains unprintable characters`},
		{s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(-1)}, Request{}), "max_versions must be between 0 and 4294967295"},
	} {
		if !errors.Is(c.err, ErrInvalid) || c.err.Error() != c.want {
			t.Errorf("%d: %v, want %s", i, c.err, c.want)
		}
	}
	many := map[string]string{}
	for i := range 65 {
		many[fmt.Sprint(i)] = "v"
	}
	if err := s.UpdateMetadata(ctx, "p", MetadataUpdate{CustomMetadata: many}, Request{}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if after := len(keys(t, v, "")); after != before {
		t.Errorf("%d keys became %d", before, after)
	}
}

func TestCheckAndSet(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	put := func(cas *int) error {
		_, err := s.Write(ctx, "a", Object(`{"x":1}`), WriteOptions{CAS: cas})
		return err
	}
	for i, c := range []struct {
		cas  *int
		want error
	}{{ptr(1), ErrCASMismatch}, {ptr(0), nil}, {ptr(0), ErrCASMismatch}, {ptr(2), ErrCASMismatch}, {ptr(-1), ErrCASMismatch}, {ptr(1), nil}, {nil, nil}} {
		if err := put(c.cas); !errors.Is(err, c.want) {
			t.Errorf("%d: %v, want %v", i, err, c.want)
		}
	}
	if ErrCASMismatch.Error() != "check-and-set parameter did not match the current version" || ErrCASRequired.Error() != "check-and-set parameter required for this call" {
		t.Error("clients compare these texts")
	}
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{CASRequired: ptr(true)}, Request{}))
	if err := put(nil); !errors.Is(err, ErrCASRequired) {
		t.Error(err)
	}
	if _, err := s.Patch(ctx, "a", Object(`{}`), WriteOptions{}); !errors.Is(err, ErrCASRequired) {
		t.Error(err)
	}
	must(t, put(ptr(3)))
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{CASRequired: ptr(false)}, Request{}))
	must(t, put(nil))
	must(t, s.UpdateConfig(ctx, ConfigUpdate{CASRequired: ptr(true)}, Request{}))
	if err := put(nil); !errors.Is(err, ErrCASRequired) {
		t.Error(err)
	}
	must(t, s.DeleteLatest(ctx, "a", Request{}))
	must(t, put(ptr(5))) // a deleted version counts
}

func TestDeleteUndeleteDestroy(t *testing.T) {
	s, v := newStore(t)
	apart(s)
	ctx := t.Context()
	for _, d := range []string{`{"v":1}`, `{"v":2}`, `{"v":3}`} {
		write(t, s, "a", d)
	}
	must(t, s.DeleteLatest(ctx, "a", Request{}))
	must(t, s.DeleteLatest(ctx, "a", Request{}))
	_, err := s.Read(ctx, "a", 0)
	var gone *DeletedError
	if !errors.As(err, &gone) || !errors.Is(err, ErrDeleted) || gone.Metadata.Version != 3 || gone.Metadata.DeletionTime.IsZero() || gone.Metadata.Destroyed {
		t.Fatalf("%v", err)
	}
	if got := read(t, s, "a", 2); got != `{"v":2}` {
		t.Error(got)
	}
	must(t, s.Delete(ctx, "a", []uint64{1, 2, 77}, Request{}))
	must(t, s.Undelete(ctx, "a", []uint64{1, 3, 77}, Request{}))
	if got := read(t, s, "a", 0) + read(t, s, "a", 1) + read(t, s, "a", 2); got != `{"v":3}{"v":1}version 2 was deleted` {
		t.Error(got)
	}
	must(t, s.Destroy(ctx, "a", []uint64{1, 1, 2, 77}, Request{}))
	must(t, s.Undelete(ctx, "a", []uint64{1, 2}, Request{}))
	if got := read(t, s, "a", 1) + read(t, s, "a", 2); got != `version 1 was destroyedversion 2 was destroyed` {
		t.Error(got)
	}
	if got := fmt.Sprint(keys(t, v, dataPrefix)); got != "[kv/data/a/3]" {
		t.Error("destroyed data are in the store:", got)
	}
	must(t, s.DeleteMetadata(ctx, "a", Request{}))
	if got := keys(t, v, ""); len(got) != 0 {
		t.Error(got)
	}
	for _, err := range []error{
		s.DeleteLatest(ctx, "a", Request{}), s.Delete(ctx, "a", []uint64{1}, Request{}), s.Undelete(ctx, "a", []uint64{1}, Request{}),
		s.Destroy(ctx, "a", []uint64{1}, Request{}), s.DeleteMetadata(ctx, "a", Request{}),
	} {
		must(t, err) // what is not there is left alone
	}
	if got := keys(t, v, ""); len(got) != 0 {
		t.Error(got)
	}
	if m := write(t, s, "a", `{"v":"new"}`); m.Version != 1 {
		t.Errorf("%+v", m)
	}
}

func TestWindowOfVersions(t *testing.T) {
	s, v := newStore(t)
	apart(s)
	ctx := t.Context()
	for i := range 25 {
		write(t, s, "a", fmt.Sprintf(`{"i":%d}`, i+1))
		m, err := s.ReadMetadata(ctx, "a")
		must(t, err)
		if want := uint64(max(0, i+1-9)); m.OldestVersion != want || len(m.Versions) != min(i+1, 10) || len(keys(t, v, dataPrefix)) != min(i+1, 10) {
			t.Fatalf("after %d: oldest %d, want %d; %d versions, %d in the store", i+1, m.OldestVersion, want, len(m.Versions), len(keys(t, v, dataPrefix)))
		}
	}
	if got := read(t, s, "a", 15) + read(t, s, "a", 16); got != ErrNotFound.Error()+`{"i":16}` {
		t.Error(got)
	}
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{MaxVersions: ptr(3)}, Request{}))
	if got := read(t, s, "a", 16); got != `{"i":16}` {
		t.Error("removed before the next write", got)
	}
	write(t, s, "a", `{}`)
	if got := len(keys(t, v, dataPrefix)); got != 3 {
		t.Errorf("%d versions in the store", got)
	}
	must(t, s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(5)}, Request{})) // the larger one holds
	for range 10 {
		write(t, s, "a", `{}`)
	}
	if got := len(keys(t, v, dataPrefix)); got != 5 {
		t.Errorf("%d versions in the store", got)
	}
}

// Where a commit is bounded, what is too much is removed later, and nothing is forgotten.
func TestFewOpsInACommit(t *testing.T) {
	s, v := newStore(t, physical.Caps{MaxOps: 7})
	apart(s)
	ctx := t.Context()
	must(t, s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(20)}, Request{}))
	for range 20 {
		write(t, s, "a", `{}`)
	}
	must(t, s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(2)}, Request{}))
	req := Request{ID: "z", Slot: "n/1/1"}
	for i := range 12 {
		_, err := s.Write(ctx, "a", Object(`{}`), WriteOptions{Request: Request{ID: strconv.FormatInt(int64(i), 36), Slot: "n/1/1"}})
		must(t, err)
		m, err := s.ReadMetadata(ctx, "a")
		must(t, err)
		if len(m.Versions) != 2 {
			t.Errorf("%d versions are shown", len(m.Versions))
		}
		if got := len(keys(t, v, dataPrefix)); got != max(2, 20-i-1) {
			t.Errorf("%d in the store after %d writes", got, i+1)
		}
	}
	must(t, s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(20)}, Request{}))
	for range 18 {
		write(t, s, "a", `{}`)
	}
	must(t, s.Destroy(ctx, "a", []uint64{40, 41, 42, 43, 44, 45, 46}, req))
	must(t, s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(12)}, Request{}))
	write(t, s, "a", `{}`)
	must(t, s.DeleteMetadata(ctx, "a", req))
	if got := append(keys(t, v, dataPrefix), keys(t, v, metaPrefix)...); len(got) != 0 {
		t.Error(got)
	}
}

func TestPatch(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	patch := func(data string) error {
		_, err := s.Patch(ctx, "a", Object(data), WriteOptions{})
		return err
	}
	if err := patch(`{}`); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{MaxVersions: ptr(5)}, Request{}))
	if err := patch(`{}`); !errors.Is(err, ErrNotFound) {
		t.Error("no version yet", err)
	}
	write(t, s, "a", `{"keep":1.50,"gone":1,"deep":{"x":1,"y":[1]},"big":123456789012345678901234567890}`)
	must(t, patch(`{"gone":null,"deep":{"x":null,"z":"<>"},"new":{"n":null,"m":true}}`))
	if got, want := read(t, s, "a", 0), `{"big":123456789012345678901234567890,"deep":{"y":[1],"z":"<>"},"keep":1.50,"new":{"m":true}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := s.Patch(ctx, "a", Object(`{}`), WriteOptions{CAS: ptr(1)}); !errors.Is(err, ErrCASMismatch) {
		t.Error(err)
	}
	if m, err := s.Patch(ctx, "a", Object(`{"c":1}`), WriteOptions{CAS: ptr(2)}); err != nil || m.Version != 3 {
		t.Error(m, err)
	}
	must(t, s.DeleteLatest(ctx, "a", Request{}))
	if err := patch(`{}`); !errors.Is(err, ErrDeleted) {
		t.Error(err)
	}
	must(t, s.Destroy(ctx, "a", []uint64{3}, Request{}))
	if err := patch(`{}`); !errors.Is(err, ErrDeleted) {
		t.Error(err)
	}
}

// The examples of RFC 7396, appendix A, whose target and patch are objects.
func TestMergePatch(t *testing.T) {
	for _, c := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		if got, err := mergePatch(Object(c.target), Object(c.patch)); err != nil || string(got) != c.want {
			t.Errorf("%s + %s = %s, %v", c.target, c.patch, got, err)
		}
	}
}

func TestSubkeys(t *testing.T) {
	s, _ := newStore(t)
	write(t, s, "a", `{"a":{"b":{"c":1}},"s":"secret","l":["secret"],"e":{}}`)
	for depth, want := range map[int]string{
		0: `{"a":{"b":{"c":null}},"e":null,"l":null,"s":null}`,
		1: `{"a":null,"e":null,"l":null,"s":null}`,
		2: `{"a":{"b":null},"e":null,"l":null,"s":null}`,
		3: `{"a":{"b":{"c":null}},"e":null,"l":null,"s":null}`,
	} {
		got, err := s.Subkeys(t.Context(), "a", 0, depth)
		if err != nil || string(got.Data) != want || got.Metadata.Version != 1 {
			t.Errorf("depth %d: %s, %v", depth, got.Data, err)
		}
	}
	if _, err := s.Subkeys(t.Context(), "a", 2, 0); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestMetadata(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	if _, err := s.ReadMetadata(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.PatchMetadata(ctx, "a", MetadataPatch{}, Request{}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{}, Request{})) // nothing to do
	if _, err := s.ReadMetadata(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{MaxVersions: ptr(7), DeleteVersionAfter: ptr(90 * time.Minute), CustomMetadata: map[string]string{"k": "v", "l": "w"}}, Request{}))
	m := write(t, s, "a", `{}`)
	if !m.DeletionTime.Equal(m.CreatedTime.Add(90*time.Minute)) || m.CustomMetadata["k"] != "v" {
		t.Errorf("%+v", m)
	}
	must(t, s.PatchMetadata(ctx, "a", MetadataPatch{CASRequired: ptr(true), CustomMetadata: map[string]*string{"k": nil, "n": ptr("new")}}, Request{}))
	got, err := s.ReadMetadata(ctx, "a")
	must(t, err)
	if !reflect.DeepEqual(got.CustomMetadata, map[string]string{"l": "w", "n": "new"}) || !got.CASRequired || got.MaxVersions != 7 {
		t.Errorf("%+v", got)
	}
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{CustomMetadata: map[string]string{}}, Request{}))
	got, err = s.ReadMetadata(ctx, "a")
	must(t, err)
	if len(got.CustomMetadata) != 0 || got.MaxVersions != 7 {
		t.Errorf("%+v", got)
	}
}

// What clients see is Vault's.
func TestJSON(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	m := write(t, s, "a", `{}`)
	must(t, s.DeleteLatest(ctx, "a", Request{}))
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{CustomMetadata: map[string]string{"k": "v"}, DeleteVersionAfter: ptr(time.Hour)}, Request{}))
	meta, err := s.ReadMetadata(ctx, "a")
	must(t, err)
	for _, c := range []struct {
		value any
		want  string
	}{
		{m, `{"created_time":"2026-01-02T03:04:06.000000006Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}`},
		{meta, `{"cas_required":false,"created_time":"2026-01-02T03:04:06.000000006Z","current_version":1,"custom_metadata":{"k":"v"},"delete_version_after":"1h0m0s","max_versions":0,"oldest_version":0,"updated_time":"2026-01-02T03:04:06.000000006Z","versions":{"1":{"created_time":"2026-01-02T03:04:06.000000006Z","deletion_time":"2026-01-02T03:04:07.000000006Z","destroyed":false}}}`},
	} {
		if got, err := json.Marshal(c.value); err != nil || string(got) != c.want {
			t.Errorf("%s, %v", got, err)
		}
	}
	var back VersionMetadata
	data, _ := json.Marshal(meta.Versions[0])
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, meta.Versions[0]) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestDeletionByAge(t *testing.T) {
	for i, c := range []struct {
		all, path, want time.Duration
	}{
		{0, 0, 0}, {time.Hour, 0, time.Hour}, {0, time.Hour, time.Hour}, {2 * time.Hour, time.Hour, time.Hour},
		{time.Hour, 2 * time.Hour, time.Hour}, {-1, time.Hour, 0}, {-1, 0, 0},
	} {
		s, _ := newStore(t)
		must(t, s.UpdateConfig(t.Context(), ConfigUpdate{DeleteVersionAfter: &c.all}, Request{}))
		must(t, s.UpdateMetadata(t.Context(), "a", MetadataUpdate{DeleteVersionAfter: &c.path}, Request{}))
		m := write(t, s, "a", `{}`)
		if got := m.DeletionTime; c.want == 0 && !got.IsZero() || c.want != 0 && got.Sub(m.CreatedTime) != c.want {
			t.Errorf("%d: %v", i, got.Sub(m.CreatedTime))
		}
		start := m.CreatedTime
		s.now = func() time.Time { return start.Add(90 * time.Minute) }
		want := `{}`
		if c.want > 0 && c.want < 90*time.Minute {
			want = "version 1 was deleted"
		}
		if got := read(t, s, "a", 0); got != want {
			t.Errorf("%d: %s", i, got)
		}
		must(t, s.Undelete(t.Context(), "a", []uint64{1}, Request{}))
		if got := read(t, s, "a", 0); got != `{}` {
			t.Errorf("%d: undeleted: %s", i, got)
		}
	}
}

func TestList(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	for i, p := range []string{"a", "a/b", "b", "b%", "c/d/e", "with space", "ünï", "x//y", "x/./y", "x/../y", "ctl\x01", "\xff", "%41"} {
		want := fmt.Sprintf(`{"p":%d}`, i)
		write(t, s, p, want)
		if got := read(t, s, p, 0); got != want {
			t.Errorf("%q: %s", p, got)
		}
	}
	list := func(path, after string, limit int) string {
		t.Helper()
		names, err := s.List(ctx, path, after, limit)
		must(t, err)
		return fmt.Sprintf("%q", names)
	}
	if got, want := list("", "", 0), `["%41" "a" "a/" "b" "b%" "c/" "ctl\x01" "with space" "x/" "ünï" "\xff"]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for path, want := range map[string]string{"a": `["b"]`, "a/": `["b"]`, "c/": `["d/"]`, "none": `[]`, "x/": `["../" "./" "/"]`, "x/..": `["y"]`, "x//": `["y"]`} {
		if got := list(path, "", 0); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if got := list("", "a", 2) + list("", "a/", 1) + list("", "b%", 1); got != `["a/" "b"]["b"]["c/"]` {
		t.Error(got)
	}
}

func TestLimitsOfTheStore(t *testing.T) {
	s, _ := newStore(t, physical.Caps{MaxKey: 60, MaxValue: 200, MaxOps: 10})
	ctx := t.Context()
	var tooLarge *physical.TooLargeError
	limit := 60 - len(dataPrefix) - len("/18446744073709551615")
	write(t, s, strings.Repeat("p", limit), `{}`)
	_, err := s.Write(ctx, strings.Repeat("p", limit+1), Object(`{}`), WriteOptions{})
	if !errors.As(err, &tooLarge) || tooLarge.Limit != limit || tooLarge.Size != limit+1 {
		t.Error(err)
	}
	object := `{"x":"` + strings.Repeat("x", 200-dataHeader-8) + `"}`
	write(t, s, "a", object)
	_, err = s.Write(ctx, "a", Object(object+" "), WriteOptions{})
	if !errors.As(err, &tooLarge) || tooLarge.Limit != 200-dataHeader || tooLarge.Size != len(object)+1 {
		t.Error(err)
	}
}

func TestDamage(t *testing.T) {
	s, v := newStore(t)
	apart(s)
	ctx := t.Context()
	write(t, s, "a", `{}`)
	write(t, s, "b", `{}`)
	write(t, s, "c", `{}`)
	must(t, v.store.Commit(ctx, nil, physical.Delete("kv/data/a/1"), physical.Put("kv/meta/b", []byte{3}), physical.Put("kv/data/c/1", []byte{1})))
	for path, want := range map[string]error{"a": ErrDamaged, "b": ErrNewerFormat, "c": ErrDamaged} {
		if _, err := s.Read(ctx, path, 0); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := s.Patch(ctx, path, Object(`{}`), WriteOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	must(t, v.store.Commit(ctx, nil, physical.Put("kv/config", []byte(`{"format":2}`))))
	if _, err := New(v).Write(ctx, "x", Object(`{}`), WriteOptions{}); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "format 2, this build knows 1") {
		t.Error(err)
	}
}

// Where the current version's data lie changes nothing that can be seen but the number of entries.
func TestDataBesideMetadata(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		one, v := newStore(t)
		other, _ := newStore(t)
		apart(other)
		ctx := t.Context()
		big := strings.Repeat("x", inlineMost)
		for i := range rapid.IntRange(1, 25).Draw(r, "steps") {
			versions := rapid.SliceOfN(rapid.Uint64Range(1, 12), 1, 3).Draw(r, "versions")
			what := rapid.IntRange(0, 9).Draw(r, "what")
			for _, s := range []*Store{one, other} {
				var err error
				switch what {
				case 0:
					err = s.DeleteLatest(ctx, "a", Request{})
				case 1:
					err = s.Delete(ctx, "a", versions, Request{})
				case 2:
					err = s.Undelete(ctx, "a", versions, Request{})
				case 3:
					err = s.Destroy(ctx, "a", versions, Request{})
				case 4:
					err = s.UpdateMetadata(ctx, "a", MetadataUpdate{MaxVersions: ptr(int(versions[0]))}, Request{})
				case 5:
					if versions[0] == 1 {
						err = s.DeleteMetadata(ctx, "a", Request{})
					}
				case 6:
					_, err = s.Write(ctx, "a", Object(fmt.Sprintf(`{"big":%q,"i":%d}`, big, i)), WriteOptions{})
				case 7:
					if _, err = s.Patch(ctx, "a", Object(fmt.Sprintf(`{"patch":%d}`, i)), WriteOptions{}); errors.Is(err, ErrNotFound) || errors.Is(err, ErrDeleted) {
						err = nil
					}
				default:
					_, err = s.Write(ctx, "a", Object(fmt.Sprintf(`{"i":%d}`, i)), WriteOptions{})
				}
				if err != nil {
					r.Fatal(err)
				}
			}
			for n := range uint64(30) {
				if got, want := read(t, one, "a", n), read(t, other, "a", n); got != want {
					r.Fatalf("version %d is %.60s, want %.60s", n, got, want)
				}
			}
		}
		for _, s := range []*Store{one, other} {
			must(t, s.DeleteMetadata(ctx, "a", Request{}))
		}
		if left := append(keys(t, v, dataPrefix), keys(t, v, metaPrefix)...); len(left) > 0 {
			r.Fatal("left behind:", left)
		}
	})
}
