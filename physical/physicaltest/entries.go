package physicaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// checkEntryCaps: "Caps says what the store can do. It is constant from the moment the store is open."
func checkEntryCaps(s *scene) {
	caps := s.caps()
	if caps.Name == "" || caps.Failover == "" {
		s.Errorf("Name %q and Failover %q must be filled in", caps.Name, caps.Failover)
	}
	if !caps.Entries {
		s.Errorf("Entries is false for a store that passes as a Backend")
	}
	for what, limit := range map[string]int{
		"MaxKey": caps.MaxKey, "MaxValue": caps.MaxValue, "MaxOps": caps.MaxOps, "MaxCommit": caps.MaxCommit,
	} {
		if limit < 0 {
			s.Errorf("%s is %d", what, limit)
		}
	}
	b := s.writer()
	s.put(b, "caps", "x")
	for n := range s.several(3) {
		if got := s.handle(n).Caps(); got != caps {
			s.Errorf("node %d: caps changed from %+v to %+v", n, caps, got)
		}
	}
}

// checkGetPutDelete: "Get returns the entry at key, or ErrNotFound"; Put writes, Delete removes, "nothing
// happens if it is not there".
func checkGetPutDelete(s *scene) {
	b := s.writer()
	s.wantNone(b, "a")
	s.put(b, "a", "1")
	s.wantValue(b, "a", "1")
	s.put(b, "a", "2")
	s.wantValue(b, "a", "2")
	s.must(b.Commit(s.ctx, nil, physical.Delete("a")), "delete")
	s.wantNone(b, "a")
	s.must(b.Commit(s.ctx, nil, physical.Delete("a")), "delete of what is not there")
	s.must(b.Commit(s.ctx, nil), "commit of no ops")

	// An entry and the folder of the same name are independent of each other.
	s.put(b, "d", "entry")
	s.put(b, "d/e", "below")
	s.wantValue(b, "d", "entry")
	s.must(b.Commit(s.ctx, nil, physical.Delete("d")), "delete d")
	s.wantNone(b, "d")
	s.wantValue(b, "d/e", "below")
}

// checkValues: "Values are any bytes, the empty value included".
func checkValues(s *scene) {
	b := s.writer()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, value := range map[string][]byte{
		"nil": nil, "empty": {}, "zero": {0}, "zeros": make([]byte, 100), "every-byte": all,
		"invalid-utf8": {0xff, 0xfe, 0xc0}, "newlines": []byte("a\nb\r\n"), "quotes": []byte(`'"\%s$1`),
		"4k": bytes.Repeat(all, 16), "32k": bytes.Repeat(all, 128),
	} {
		if limit := b.Caps().MaxValue; limit > 0 && len(value) > limit {
			continue
		}
		key := "values/" + name
		s.must(b.Commit(s.ctx, nil, physical.Put(key, value)), "put %s", name)
		e, err := b.Get(s.ctx, key)
		s.must(err, "get %s", name)
		if e.Key != key || !bytes.Equal(e.Value, value) {
			s.Errorf("%s: got %q with %d bytes, want %q with %d", name, e.Key, len(e.Value), key, len(value))
		}
	}
}

// checkOwnership: "The caller owns the returned value." And the values that it passed are its own again when Commit
// has returned.
func checkOwnership(s *scene) {
	b := s.writer()
	mine := []byte("mine")
	s.must(b.Commit(s.ctx, nil, physical.Put("a", mine)), "put")
	copy(mine, "XXXX")
	s.wantValue(b, "a", "mine")
	e, err := b.Get(s.ctx, "a")
	s.must(err, "get")
	copy(e.Value, "YYYY")
	s.wantValue(b, "a", "mine")
}

// checkKeys: "Keys are non-empty slash-separated paths of valid UTF-8 …", all of them work, and no others:
// they are refused with ErrInvalid by every method.
func checkKeys(s *scene) {
	b := s.writer()
	good := []string{
		"a", "A", "0", "a b", " ", "a.b", ".a", "a.", "...", "-", "~", "%2f", "a%00b", "ä", "日本語/キー", "\U0001F600",
		"a/b/c/d/e/f/g/h", "'", `"`, `\`, "*", "?", "[a]", "{x}", "$", "a:b", "a=b", "a&b", "a+b", "a#b", "\u00e9", "e\u0301",
		"\u00a0", "\u2028", "\ufffd", "core/lock", "locum/fence",
	}
	for i, key := range good {
		s.put(b, key, fmt.Sprint(i))
	}
	for i, key := range good {
		s.wantValue(b, key, fmt.Sprint(i))
	}
	bad := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/./b", "a/../b", "../a", "a\x00", "a\nb", "a\x7f", "a\u0085",
		"\xff", "a\xc3", "\xed\xa0\x80",
	}
	for _, key := range bad {
		_, err := b.Get(s.ctx, key)
		s.wantErr(err, physical.ErrInvalid, "Get(%q)", key)
		for _, op := range []physical.Op{
			physical.Put(key, nil), physical.Delete(key), physical.RequireAbsent(key), physical.RequireValue(key, nil),
		} {
			err := b.Commit(s.ctx, nil, physical.Put("whole", nil), op)
			s.wantErr(err, physical.ErrInvalid, "Commit of op %d on %q", op.Kind, key)
		}
		if key == "" || strings.HasSuffix(key, "/") {
			continue // good as a prefix, or made bad otherwise below
		}
		_, err = b.List(s.ctx, key+"/", "", 0)
		s.wantErr(err, physical.ErrInvalid, "List(%q)", key+"/")
	}
	for _, prefix := range []string{"a", "/", "a//", "a/b"} {
		_, err := b.List(s.ctx, prefix, "", 0)
		s.wantErr(err, physical.ErrInvalid, "List(%q)", prefix)
	}
	s.wantNone(b, "whole")
}

// checkOtherNodesSee: Get "reflects every Commit that returned before the call began, on whichever node"
// — on the active node. Where nodes read their own copy (Caps.LocalReads) they may lag, but not for long.
func checkOtherNodesSee(s *scene) {
	w := s.writerNode()
	writer := s.backend(w)
	for round := range 20 {
		key, value := "seen/"+fmt.Sprint(round%3), fmt.Sprint(round)
		s.put(writer, key, value)
		for n := range s.several(3) {
			b := s.backend(n)
			if n == w || !b.Caps().LocalReads {
				s.wantValue(b, key, value)
				continue
			}
			s.eventually(s.store.Settle, func(ctx context.Context) error {
				e, err := b.Get(ctx, key)
				if err == nil && string(e.Value) != value {
					err = fmt.Errorf("node %d has %q at %s, want %q", n, e.Value, key, value)
				}
				return err
			})
		}
	}
}

// checkEntriesSurviveRestart: what a Commit has written is there after every handle was closed and the
// store restarted (P3).
func checkEntriesSurviveRestart(s *scene) {
	for round := range 3 {
		b := s.writer()
		for before := range round {
			s.wantValue(b, fmt.Sprintf("kept/%d", before), fmt.Sprint(before))
			s.wantNone(b, fmt.Sprintf("gone/%d", before))
		}
		s.put(b, fmt.Sprintf("gone/%d", round), "x")
		s.must(b.Commit(s.ctx, nil, physical.Put(fmt.Sprintf("kept/%d", round), []byte(fmt.Sprint(round))),
			physical.Delete(fmt.Sprintf("gone/%d", round))), "commit")
		s.restart()
	}
}

func (s *scene) put(b physical.Backend, key, value string) {
	s.Helper()
	s.must(b.Commit(s.ctx, nil, physical.Put(key, []byte(value))), "put %q", key)
}

func (s *scene) wantValue(b physical.Backend, key, value string) {
	s.Helper()
	e, err := b.Get(s.ctx, key)
	s.must(err, "get %q", key)
	if e.Key != key || string(e.Value) != value {
		s.Errorf("at %q there is %q under the name %q, want %q", key, e.Value, e.Key, value)
	}
}

func (s *scene) wantNone(b physical.Backend, key string) {
	s.Helper()
	e, err := b.Get(s.ctx, key)
	if !errors.Is(err, physical.ErrNotFound) {
		s.Errorf("get %q: got %v and error %v, want ErrNotFound", key, e, err)
	}
}
