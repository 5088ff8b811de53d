package s3

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/frozen"
)

// What stands in the bucket stays readable: index and pages; the lock is a cell, see internal/cell.
func TestFrozenFormats(t *testing.T) {
	const text = `{"format":1,"version":3,"marks":["m1","m2"],"fence":{"lineage":"l","term":7,"nonce":"010000000000000000000000000000ff"},` +
		`"pages":[{"first":"","object":"objects/p1","bytes":20},{"first":"k","object":"objects/p2","bytes":30}]}`
	x, err := parseIndex([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := x.fenceNow(); err != nil || f != frozen.Fence || storedFence(f) != x.Fence {
		t.Errorf("fence %+v, %v", f, err)
	}
	want := &index{
		Format: 1, Version: 3, Marks: []string{"m1", "m2"}, Fence: storedFence(frozen.Fence),
		Pages: []pageRef{{"", "objects/p1", 20}, {"k", "objects/p2", 30}},
	}
	if !reflect.DeepEqual(x, want) {
		t.Errorf("index %+v, want %+v", x, want)
	}
	if got, err := json.Marshal(want); err != nil || string(got) != text {
		t.Errorf("the index is now %s, want %s", got, text)
	}
	if _, err := parseIndex([]byte(`{"format":2}`)); err == nil {
		t.Error("a newer format is taken")
	}

	page := "LP\x01\x02\x01a\x00\x05value\x01b\x01\x80\x20" + strings.Repeat("\x07", 32) + "\x09objects/x"
	p, err := parsePage([]byte(page))
	if err != nil || len(p.items) != 2 || string(p.items[0].value) != "value" {
		t.Fatalf("page %+v, %v", p, err)
	}
	if b := p.items[1]; b.key != "b" || b.object != "objects/x" || b.size != 4096 || b.sum != [32]byte([]byte(strings.Repeat("\x07", 32))) {
		t.Errorf("item %+v", b)
	}
	if got := p.marshal(); string(got) != page {
		t.Errorf("the page is now %q, want %q", got, page)
	}
}
