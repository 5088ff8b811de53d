package physical_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/locum-ha/locum/physical"
)

// "Ops beyond the store's limits (Caps) are refused with a *TooLargeError": the limit itself is allowed, one more
// is named with its size, its limit and its key.
func TestCapsCheckLimits(t *testing.T) {
	caps := physical.Caps{MaxKey: 10, MaxValue: 20, MaxOps: 3, MaxCommit: 50}
	put := func(key, value int) physical.Op {
		return physical.Put(strings.Repeat("k", key), make([]byte, value))
	}
	for name, c := range map[string]struct {
		ops  []physical.Op
		want *physical.TooLargeError
	}{
		"nothing":        {nil, nil},
		"all at limit":   {[]physical.Op{put(10, 20), put(9, 1), put(8, 2)}, nil},
		"key":            {[]physical.Op{put(11, 0)}, &physical.TooLargeError{What: "key", Key: "kkkkkkkkkkk", Size: 11, Limit: 10}},
		"key of delete":  {[]physical.Op{physical.Delete("kkkkkkkkkkk")}, &physical.TooLargeError{What: "key", Key: "kkkkkkkkkkk", Size: 11, Limit: 10}},
		"value":          {[]physical.Op{put(1, 21)}, &physical.TooLargeError{What: "value", Key: "k", Size: 21, Limit: 20}},
		"required value": {[]physical.Op{physical.RequireValue("k", make([]byte, 21))}, &physical.TooLargeError{What: "value", Key: "k", Size: 21, Limit: 20}},
		"ops":            {[]physical.Op{put(1, 0), put(2, 0), put(3, 0), put(4, 0)}, &physical.TooLargeError{What: "ops in a commit", Size: 4, Limit: 3}},
		"bytes":          {[]physical.Op{put(10, 20), put(9, 11), put(1, 0)}, &physical.TooLargeError{What: "bytes in a commit", Size: 51, Limit: 50}},
	} {
		err := caps.Check(c.ops)
		var got *physical.TooLargeError
		if c.want == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if !errors.As(err, &got) || *got != *c.want || !errors.Is(err, physical.ErrTooLarge) {
			t.Errorf("%s: got %+v, want %+v", name, err, c.want)
		}
	}
	if err := (physical.Caps{}).Check([]physical.Op{put(1<<16, 1<<20), put(2, 1<<20)}); err != nil {
		t.Errorf("without limits: %v", err)
	}
}

// "A key may be written once in a commit, and conditioned once."
func TestCapsCheckOps(t *testing.T) {
	for name, c := range map[string]struct {
		ops  []physical.Op
		good bool
	}{
		"condition and write":  {[]physical.Op{physical.RequireAbsent("a"), physical.Put("a", nil)}, true},
		"write and condition":  {[]physical.Op{physical.Delete("a"), physical.RequireValue("a", nil)}, true},
		"written twice":        {[]physical.Op{physical.Put("a", nil), physical.Put("b", nil), physical.Put("a", nil)}, false},
		"put and deleted":      {[]physical.Op{physical.Put("a", nil), physical.Delete("a")}, false},
		"conditioned twice":    {[]physical.Op{physical.RequireAbsent("a"), physical.RequireValue("a", nil)}, false},
		"keys that look alike": {[]physical.Op{physical.Put("!a", nil), physical.RequireAbsent("?a"), physical.Put("?a", nil), physical.RequireAbsent("!a")}, true},
		"no kind":              {[]physical.Op{{Key: "a"}}, false},
		"unknown kind":         {[]physical.Op{{Kind: 5, Key: "a"}}, false},
		"bad key":              {[]physical.Op{physical.Delete("a//b")}, false},
	} {
		if err := (physical.Caps{}).Check(c.ops); (err == nil) != c.good || err != nil && !errors.Is(err, physical.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// CheckKey is the definition in Backend's comment, and CheckPrefix follows from it.
func TestCheckKey(t *testing.T) {
	for key, good := range map[string]bool{
		"a": true, "a/b": true, "...": true, "a b": true, "\u00e4": true, "\U0001F600": true, "%2e%2e": true,
		"": false, "/": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, "a/../b": false, "./a": false,
		"a\x00": false, "a\tb": false, "\x7f": false, "\u0085": false, "\xff": false, "\xed\xa0\x80": false,
	} {
		if err := physical.CheckKey(key); (err == nil) != good || err != nil && !errors.Is(err, physical.ErrInvalid) {
			t.Errorf("CheckKey(%q) = %v", key, err)
		}
	}
	for prefix, good := range map[string]bool{
		"": true, "a/": true, "a/b/": true, "a": false, "/": false, "a//": false, "/a/": false, "../": false, "a/./": false,
	} {
		if err := physical.CheckPrefix(prefix); (err == nil) != good || err != nil && !errors.Is(err, physical.ErrInvalid) {
			t.Errorf("CheckPrefix(%q) = %v", prefix, err)
		}
	}
}

// Whatever is taken as a key is what the contract says, joins with another to a key, and is a folder's prefix.
func FuzzCheckKey(f *testing.F) {
	for _, seed := range []string{"a", "a/b", "", "/", "..", "a/../b", "\x00", "\xff", "\u0085", "a/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		good := key != "" && utf8.ValidString(key) && !strings.HasPrefix(key, "/") && !strings.HasSuffix(key, "/") &&
			!strings.Contains("/"+key+"/", "//") && !strings.Contains("/"+key+"/", "/./") && !strings.Contains("/"+key+"/", "/../")
		for _, r := range key {
			good = good && !unicode.IsControl(r)
		}
		if err := physical.CheckKey(key); (err == nil) != good {
			t.Fatalf("CheckKey(%q) = %v", key, err)
		}
		if (physical.CheckPrefix(key+"/") == nil) != good {
			t.Fatalf("CheckPrefix(%q) = %v", key+"/", physical.CheckPrefix(key+"/"))
		}
		if good && physical.CheckKey(key+"/"+key) != nil {
			t.Fatalf("%q is a key, and below itself it is not", key)
		}
	})
}
