package zookeeper

import (
	"strings"
	"testing"
)

// Every key comes back as it was, is stored in characters that Consul takes, and keeps its folders.
func FuzzEscape(f *testing.F) {
	for _, seed := range []string{"a", "a/b", "%", "%41", "a%00b", "ä/日本", "\u00a0", "\xff", "a\x00b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		stored := escape(key)
		if back := unescape(stored); back != key {
			t.Errorf("%q is stored as %q and comes back as %q", key, stored, back)
		}
		if strings.ContainsFunc(stored, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is stored as %q", key, stored)
		}
		if strings.Count(stored, "/") != strings.Count(key, "/") {
			t.Errorf("%q is stored as %q, with other folders", key, stored)
		}
	})
}
