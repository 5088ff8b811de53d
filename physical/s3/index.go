package s3

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/locum-ha/locum/physical"
)

const (
	indexName  = "index"
	lockName   = "lock"
	objectsDir = "objects/"

	format = 1 // of index and pages

	inlineMax = 2 << 10   // bytes of a value that stands in its page
	pageMax   = 128 << 10 // bytes of a page, before it is split
	marksKept = 64        // swaps that an index remembers
)

// index is the one object that is swapped.
type index struct {
	Format  int       `json:"format"`
	Version uint64    `json:"version"` // counts the swaps
	Marks   []string  `json:"marks"`   // of the last swaps, the newest last
	Fence   fence     `json:"fence"`
	Pages   []pageRef `json:"pages"` // in ascending order of their keys
}

type fence struct {
	Lineage string `json:"lineage,omitempty"`
	Term    uint64 `json:"term,omitempty"`
	Nonce   string `json:"nonce,omitempty"` // hex
}

// pageRef is a page as the index knows it. It holds the keys from First up to the next page's.
type pageRef struct {
	First  string `json:"first"`
	Object string `json:"object"`
	Bytes  int    `json:"bytes"`
}

func (x *index) fenceNow() (physical.Fence, error) {
	f := physical.Fence{Lineage: x.Fence.Lineage, Term: x.Fence.Term}
	if x.Fence.Nonce == "" {
		return f, nil
	}
	nonce, err := hex.DecodeString(x.Fence.Nonce)
	if err != nil || len(nonce) != len(f.Nonce) {
		return f, errors.New("the index's fence has no valid nonce")
	}
	copy(f.Nonce[:], nonce)
	return f, nil
}

func storedFence(f physical.Fence) fence {
	return fence{Lineage: f.Lineage, Term: f.Term, Nonce: hex.EncodeToString(f.Nonce[:])}
}

func parseIndex(data []byte) (*index, error) {
	x := &index{}
	if err := json.Unmarshal(data, x); err != nil {
		return nil, fmt.Errorf("the index object is not Locum's: %w", err)
	}
	if x.Format != format {
		return nil, fmt.Errorf("the index object has format %d and this version knows %d", x.Format, format)
	}
	return x, nil
}

// pageOf is the number of the page that key belongs to; -1 if there is none.
func (x *index) pageOf(key string) int {
	return max(sort.Search(len(x.Pages), func(i int) bool { return x.Pages[i].First > key })-1, min(0, len(x.Pages)-1))
}

// item is one entry in a page: its value, or the object that holds it.
type item struct {
	key    string
	value  []byte
	object string // "": the value stands here
	size   int
	sum    [sha256.Size]byte
}

func newItem(key string, value []byte) item {
	return item{key: key, value: value, size: len(value), sum: sha256.Sum256(value)}
}

// holds reports whether the item's value is this one.
func (i *item) holds(value []byte) bool { return i.size == len(value) && i.sum == sha256.Sum256(value) }

// cost is about what the item takes in its page.
func (i *item) cost() int {
	if i.object != "" {
		return len(i.key) + len(i.object) + 48
	}
	return len(i.key) + len(i.value) + 16
}

// page is a sorted range of items. It is never changed.
type page struct {
	items []item
	bytes int
}

func newPage(items []item) *page {
	p := &page{items: items}
	for i := range items {
		p.bytes += items[i].cost()
	}
	return p
}

func (p *page) search(key string) (int, bool) {
	return slices.BinarySearchFunc(p.items, key, func(i item, key string) int { return bytes.Compare([]byte(i.key), []byte(key)) })
}

// A page's object: "LP", the format, the number of items; for each its key, then 0 and the value, or 1, the value's size, its
// SHA-256 and the name of its object. Numbers are unsigned varints, strings have their length before them.

const pageMagic = "LP"

func (p *page) marshal() []byte {
	out := append([]byte(pageMagic), format)
	out = binary.AppendUvarint(out, uint64(len(p.items)))
	text := func(s string) {
		out = binary.AppendUvarint(out, uint64(len(s)))
		out = append(out, s...)
	}
	for i := range p.items {
		it := &p.items[i]
		text(it.key)
		if it.object == "" {
			out = append(out, 0)
			text(string(it.value))
			continue
		}
		out = append(out, 1)
		out = binary.AppendUvarint(out, uint64(it.size))
		out = append(out, it.sum[:]...)
		text(it.object)
	}
	return out
}

var errPage = errors.New("damaged page")

func parsePage(data []byte) (*page, error) {
	if len(data) < 3 || string(data[:2]) != pageMagic {
		return nil, errPage
	}
	if data[2] != format {
		return nil, fmt.Errorf("a page has format %d and this version knows %d", data[2], format)
	}
	r := &pageReader{data: data[3:]}
	n := r.number()
	if n > uint64(len(data)) {
		return nil, errPage
	}
	items := make([]item, 0, n)
	for range n {
		key := string(r.bytes(r.number()))
		if kind := r.bytes(1); len(kind) == 1 && kind[0] == 0 {
			items = append(items, newItem(key, r.bytes(r.number())))
			continue
		}
		it := item{key: key, size: int(r.number())}
		copy(it.sum[:], r.bytes(sha256.Size))
		it.object = string(r.bytes(r.number()))
		items = append(items, it)
	}
	if r.bad || len(r.data) > 0 {
		return nil, errPage
	}
	return newPage(items), nil
}

// pageReader takes values off the front; what is not there makes it bad.
type pageReader struct {
	data []byte
	bad  bool
}

func (r *pageReader) number() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *pageReader) bytes(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.bad, r.data = true, nil
		return nil
	}
	out := r.data[:n:n]
	r.data = r.data[n:]
	return out
}
