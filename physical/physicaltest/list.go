package physicaltest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// checkListFolders: "the direct children of prefix, relative to it, in ascending byte order. A child with
// children of its own is listed as a folder with "/" at its end; a name that is both an entry and a folder is
// listed twice … A prefix without children gives an empty list."
func checkListFolders(s *scene) {
	b := s.writer()
	s.wantList(b, "", "", 0)
	deep := "deep/" + strings.Repeat("d/", 30) + "end"
	// '!' and '-' and '.' sort before "/", '0' and 'a' after it: an entry can stand between a name and
	// the folder of that name.
	for _, key := range []string{
		"x", "x/1", "x/2/3", "x!", "x-", "x.", "x0", "xa", "only/entry", "only/folder/a/b", deep, "ü", "ü/z", "X",
	} {
		s.put(b, key, "v")
	}
	s.wantList(b, "", "", 0, "X", "deep/", "only/", "x", "x!", "x-", "x.", "x/", "x0", "xa", "ü", "ü/")
	s.wantList(b, "x/", "", 0, "1", "2/")
	s.wantList(b, "x/2/", "", 0, "3")
	s.wantList(b, "x/1/", "", 0)
	s.wantList(b, "nothing/", "", 0)
	s.wantList(b, "xa/", "", 0)
	s.wantList(b, "only/", "", 0, "entry", "folder/")
	s.wantList(b, "only/folder/", "", 0, "a/")
	s.wantList(b, "deep/"+strings.Repeat("d/", 29), "", 0, "d/")
	s.wantList(b, "deep/"+strings.Repeat("d/", 30), "", 0, "end")
	s.wantList(b, "ü/", "", 0, "z")

	// Folders exist only through what is in them.
	s.must(b.Commit(s.ctx, nil, physical.Delete("x/1")), "delete")
	s.wantList(b, "x/", "", 0, "2/")
	s.must(b.Commit(s.ctx, nil, physical.Delete("x/2/3"), physical.Delete(deep), physical.Delete("ü")), "delete")
	s.wantList(b, "x/", "", 0)
	s.wantList(b, "", "", 0, "X", "only/", "x", "x!", "x-", "x.", "x0", "xa", "ü/")
}

// checkListPages: "Only names greater than after are returned (after need not exist), at most limit of
// them where limit > 0."
func checkListPages(s *scene) {
	b := s.writer()
	for _, key := range []string{"a", "a/1", "a/2", "a-b", "b/1/2", "b/1/3", "c", "d/1", "e", "e/f/g", "f0"} {
		s.put(b, "p/"+key, "v")
		s.put(b, "before/"+key, "v")
		s.put(b, "q/"+key, "v")
	}
	want := []string{"a", "a-b", "a/", "b/", "c", "d/", "e", "e/", "f0"}
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := b.List(s.ctx, "p/", after, limit)
			s.must(err, "list after %q", after)
			if len(page) > limit {
				s.Fatalf("list of at most %d gave %q", limit, page)
			}
			if len(page) == 0 {
				break
			}
			if got = append(got, page...); len(got) > 2*len(want) {
				s.Fatalf("pages of %d never end: %q", limit, got)
			}
		}
		if !slices.Equal(got, want) {
			s.Errorf("pages of %d give %q, want %q", limit, got, want)
		}
	}
	s.wantList(b, "p/", "", -1, want...)
	// After a name that does not exist, also one that cannot exist as a name.
	for _, after := range []string{
		"\x00", "A", "a!", "a.", "a/", "a/1", "a/zzz", "a0", "aa", "b", "b/", "b/0", "b/1/2", "bb", "d/0", "e/", "e/e", "f", "f0", "g", "zz", "\xff",
	} {
		var rest []string
		for _, name := range want {
			if name > after {
				rest = append(rest, name)
			}
		}
		s.wantList(b, "p/", after, 0, rest...)
		s.wantList(b, "p/", after, 2, rest[:min(2, len(rest))]...)
	}
}

// checkListAgainstModel compares List with its definition on random trees, prefixes, afters and limits.
func checkListAgainstModel(s *scene) {
	b := s.writer()
	random := rand.New(rand.NewPCG(1, 2))
	const letters = "ab-.0"
	segment := func() string {
		n := 1 + random.IntN(2)
		var name strings.Builder
		for range n {
			name.WriteByte(letters[random.IntN(len(letters))])
		}
		if name.String() == "." || name.String() == ".." {
			return "a"
		}
		return name.String()
	}
	path := func() string {
		parts := make([]string, 1+random.IntN(4))
		for i := range parts {
			parts[i] = segment()
		}
		return strings.Join(parts, "/")
	}
	keys := make(map[string]bool)
	var ops []physical.Op
	for range 120 {
		key := path()
		if !keys[key] {
			keys[key] = true
			ops = append(ops, physical.Put(key, []byte("v")))
		}
	}
	s.commitAll(b, ops)
	for range 300 {
		prefix, after := "", ""
		if random.IntN(3) > 0 {
			prefix = path() + "/"
		}
		switch random.IntN(4) {
		case 0:
			after = segment()
		case 1:
			after = segment() + "/"
		case 2:
			after = path()
		}
		limit := random.IntN(6)
		s.wantList(b, prefix, after, limit, listModel(keys, prefix, after, limit)...)
	}
}

// listModel is the definition of List.
func listModel(keys map[string]bool, prefix, after string, limit int) []string {
	names := make(map[string]bool)
	for key := range keys {
		name, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		if folder, _, ok := strings.Cut(name, "/"); ok {
			name = folder + "/"
		}
		if name > after {
			names[name] = true
		}
	}
	all := slices.Sorted(maps.Keys(names))
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

// checkListMany lists more children than one answer of most stores' own holds, a folder with as many among them.
func checkListMany(s *scene) {
	b := s.writer()
	const n = 1200
	var ops []physical.Op
	var want []string
	for i := range n {
		name := fmt.Sprintf("%05d", i)
		ops = append(ops, physical.Put("many/"+name, []byte("v")), physical.Put("many/00007/"+name, []byte("v")))
		want = append(want, name)
		if i == 7 {
			want = append(want, name+"/")
		}
	}
	s.commitAll(b, ops)
	s.wantList(b, "many/", "", 0, want...)
	s.wantList(b, "", "", 0, "many/")
	s.wantList(b, "many/", "00007", 2, "00007/", "00008")
	s.wantList(b, "many/00007/", "01100", 0, want[1102:]...)
	s.wantList(b, "many/", "", n, want[:n]...)
}

// commitAll writes ops in as many commits as the store's limits demand.
func (s *scene) commitAll(b physical.Backend, ops []physical.Op) {
	s.Helper()
	const most = 100
	size := most
	if limit := b.Caps().MaxOps; limit > 0 {
		size = min(size, limit)
	}
	for chunk := range slices.Chunk(ops, size) {
		s.must(b.Commit(s.ctx, nil, chunk...), "commit of %d ops", len(chunk))
	}
}

func (s *scene) wantList(b physical.Backend, prefix, after string, limit int, want ...string) {
	s.Helper()
	got, err := b.List(s.ctx, prefix, after, limit)
	s.must(err, "list %q", prefix)
	if !slices.Equal(got, want) {
		s.Errorf("List(%q, %q, %d) = %s, want %s", prefix, after, limit, short(got), short(want))
	}
}

func short(names []string) string {
	if len(names) <= 20 {
		return fmt.Sprintf("%q", names)
	}
	return fmt.Sprintf("%q … %q (%d names)", names[:10], names[len(names)-5:], len(names))
}
