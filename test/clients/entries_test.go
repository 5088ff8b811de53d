package clients

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// text is data as canonical JSON: the clients decode numbers into different types.
func text(t *testing.T, data object) string {
	t.Helper()
	b, err := json.Marshal(data)
	ok(t, "data as JSON", err)
	return string(b)
}

// The life of an entry: versions, conflicts, deletion and its undoing, destruction.
func (p *place) entries(t *testing.T) {
	ctx := within(t, 20*time.Second)
	c := p.client(t)
	path := p.prefix + "/app/config one" // a space, as people write them
	if p.kind.name == "node-vault" {
		path = p.prefix + "/app/config-one" // this client leaves the encoding to its caller
	}
	first := object{"user": "ä\"<&>", "number": 12345678901, "nested": object{"list": []any{"a", true, nil}}}

	_, err := c.Get(ctx, path, 0)
	failed(t, "read of what is not there", err, 404, "")

	e, err := c.Put(ctx, path, first, 0)
	ok(t, "first write, with cas 0", err)
	if e.Version != 1 || e.Created.IsZero() || !e.Deleted.IsZero() || e.Destroyed {
		t.Errorf("first write: %+v", e)
	}
	// P3: at once, also where the answer and the next question take different ways.
	if e, err = c.Get(ctx, path, 0); err != nil || text(t, e.Data) != text(t, first) || e.Version != 1 {
		t.Errorf("read: %+v, %v", e, err)
	}

	const mismatch = "check-and-set parameter did not match the current version"
	_, err = c.Put(ctx, path, object{"user": "b"}, 0)
	failed(t, "write with cas 0 where there is a version", err, 400, mismatch)
	_, err = c.Put(ctx, path, object{"user": "b"}, 7)
	failed(t, "write with a cas of the future", err, 400, mismatch)
	if e, err = c.Put(ctx, path, object{"user": "b", "gone": "x"}, 1); err != nil || e.Version != 2 {
		t.Errorf("write with the right cas: %+v, %v", e, err)
	}
	if e, err = c.Put(ctx, path, object{"user": "c", "gone": "x"}, -1); err != nil || e.Version != 3 {
		t.Errorf("write without cas: %+v, %v", e, err)
	}

	if e, err = c.Patch(ctx, path, object{"gone": nil, "new": "y"}); err != nil || e.Version != 4 {
		t.Errorf("patch: %+v, %v", e, err)
	}
	for version, want := range []string{`{"new":"y","user":"c"}`, text(t, first), `{"gone":"x","user":"b"}`, `{"gone":"x","user":"c"}`} {
		if e, err = c.Get(ctx, path, version); err != nil || text(t, e.Data) != want {
			t.Errorf("version %d: %s, %v, want %s", version, text(t, e.Data), err, want)
		}
	}
	_, err = c.Get(ctx, path, 9)
	failed(t, "read of a version that is not there", err, 404, "")
	_, err = c.Patch(ctx, p.prefix+"/app/none", object{"a": "b"})
	failed(t, "patch of what is not there", err, 404, "")

	p.removal(t, c, path)
}

// removal goes on with an entry of four versions.
func (p *place) removal(t *testing.T, c client, path string) {
	ctx := within(t, 20*time.Second)
	state := func(what string, version int, data, deleted, destroyed bool) {
		t.Helper()
		e, err := c.Get(ctx, path, version)
		if err != nil || (e.Data != nil) != data || e.Deleted.IsZero() == deleted || e.Destroyed != destroyed {
			t.Errorf("%s: version %d is %+v, %v", what, version, e, err)
		}
	}
	ok(t, "delete", c.Delete(ctx, path))
	state("deleted", 0, false, true, false)
	ok(t, "delete of versions", c.Delete(ctx, path, 1, 2))
	state("deleted", 2, false, true, false)
	state("left alone", 3, true, false, false)
	ok(t, "undelete", c.Undelete(ctx, path, 2, 4))
	state("undeleted", 2, true, false, false)
	state("undeleted", 0, true, false, false)
	ok(t, "destroy", c.Destroy(ctx, path, 1, 2))
	state("destroyed", 2, false, false, true)
	ok(t, "undelete of what was destroyed", c.Undelete(ctx, path, 2))
	state("destroyed", 2, false, false, true)

	ok(t, "a second entry", errOf(c.Put(ctx, p.prefix+"/app/b", object{"x": "y"}, -1)))
	ok(t, "an entry above", errOf(c.Put(ctx, p.prefix+"/top", object{"x": "y"}, -1)))
	names, err := c.List(ctx, p.prefix)
	if err != nil || !slices.Equal(names, []string{"app/", "top"}) {
		t.Errorf("list: %q, %v", names, err)
	}
	names, err = c.List(ctx, p.prefix+"/app")
	if err != nil || !slices.Equal(names, []string{"b", path[strings.LastIndex(path, "/")+1:]}) {
		t.Errorf("list of a folder: %q, %v", names, err)
	}
	names, err = c.List(ctx, "")
	if err != nil || !slices.Contains(names, p.prefix+"/") {
		t.Errorf("list of everything: %q, %v", names, err)
	}
	_, err = c.List(ctx, p.prefix+"/none")
	failed(t, "list of what is not there", err, 404, "")
}

// errOf drops the value of a call.
func errOf(_ entry, err error) error { return err }

// An entry's metadata and what they demand of writes.
func (p *place) metadata(t *testing.T) {
	ctx := within(t, 20*time.Second)
	c := p.client(t)
	path := p.prefix + "/described"

	_, err := c.Metadata(ctx, path)
	failed(t, "metadata of what is not there", err, 404, "")
	custom := object{"owner": "team", "env": "test"}
	ok(t, "metadata first", c.PutMetadata(ctx, path, settings{MaxVersions: 2, CASRequired: true, Custom: custom}))
	_, err = c.Put(ctx, path, object{"n": "1"}, -1)
	failed(t, "write without cas", err, 400, "check-and-set parameter required for this call")
	for n := range 3 {
		ok(t, "write with cas", errOf(c.Put(ctx, path, object{"n": "x"}, n)))
	}
	ok(t, "delete of a version", c.Delete(ctx, path, 2))

	m, err := c.Metadata(ctx, path)
	ok(t, "metadata", err)
	if m.Current != 3 || m.Oldest != 2 || m.MaxVersions != 2 || !m.CASRequired || m.DeleteAfter != 0 || text(t, m.Custom) != text(t, custom) {
		t.Errorf("metadata: %+v", m)
	}
	if len(m.Versions) != 2 || m.Versions["2"].Deleted.IsZero() || !m.Versions["3"].Deleted.IsZero() || m.Versions["3"].Created.IsZero() {
		t.Errorf("versions: %+v", m.Versions)
	}
	_, err = c.Get(ctx, path, 1)
	failed(t, "read of a version beyond max_versions", err, 404, "")
	if e, err := c.Get(ctx, path, 0); err != nil || text(t, e.Custom) != text(t, custom) {
		t.Errorf("custom metadata with the entry: %+v, %v", e, err)
	}

	ok(t, "patch of metadata", c.PatchMetadata(ctx, path, 5, object{"env": nil, "stage": "two"}))
	m, err = c.Metadata(ctx, path)
	if err != nil || m.MaxVersions != 5 || !m.CASRequired || text(t, m.Custom) != `{"owner":"team","stage":"two"}` {
		t.Errorf("patched metadata: %+v, %v", m, err)
	}

	ok(t, "delete of everything", c.DeleteMetadata(ctx, path))
	_, err = c.Metadata(ctx, path)
	failed(t, "metadata of what was removed", err, 404, "")
	_, err = c.Get(ctx, path, 0)
	failed(t, "read of what was removed", err, 404, "")
}

// Large entries, which a redirected client sends twice; and too large ones.
func (p *place) sizes(t *testing.T) {
	ctx := within(t, 20*time.Second)
	c := p.client(t)
	path := p.prefix + "/large"
	large := object{"blob": strings.Repeat("x", 1<<20-len(`{"blob":""}`))} // 1 MiB of JSON
	ok(t, "large write", errOf(c.Put(ctx, path, large, 0)))
	if e, err := c.Get(ctx, path, 0); err != nil || e.Data["blob"] != large["blob"] {
		t.Errorf("large read: %d bytes, %v", len(text(t, e.Data)), err)
	}
	_, err := c.Put(ctx, path, object{"blob": strings.Repeat("x", 3<<20)}, -1)
	failed(t, "write of 3 MiB", err, 413, "")
	ok(t, "removal", c.DeleteMetadata(ctx, path))
}
