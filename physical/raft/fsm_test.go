package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	hraft "github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/locum-ha/locum/physical"
)

func openTestState(t testing.TB) *machine {
	t.Helper()
	s, err := openState(filepath.Join(t.TempDir(), "state.db"))
	must(t, err)
	t.Cleanup(func() { must(t, s.close()) })
	return &machine{state: s, fail: func(err error) { t.Error(err) }}
}

// fsmModel is the state machine as a reader of the contracts would write it down.
type fsmModel struct {
	entries map[string]string
	fence   physical.Fence
	lock    lockRecord
	addrs   map[string]string
}

func (m *fsmModel) apply(raftTerm uint64, r *request) error {
	switch r.kind {
	case kindCommit:
		if r.fenced && m.fence != r.fence || !r.fenced && !m.fence.IsZero() {
			return physical.ErrFenced
		}
		for _, op := range r.ops {
			v, ok := m.entries[op.Key]
			if op.Kind == physical.OpRequireAbsent && ok || op.Kind == physical.OpRequireValue && (!ok || v != string(op.Value)) {
				return physical.ErrConflict
			}
		}
		for _, op := range r.ops {
			switch op.Kind {
			case physical.OpPut:
				m.entries[op.Key] = string(op.Value)
			case physical.OpDelete:
				delete(m.entries, op.Key)
			}
		}
	case kindRaise:
		if m.fence != r.fence || r.to.Term <= m.fence.Term {
			return physical.ErrFenced
		}
		m.fence = r.to
	case kindAcquire:
		m.lock = lockRecord{raftTerm: raftTerm, Record: physical.Record{
			Holder: r.holder, Name: r.name, Term: max(m.lock.Term, m.fence.Term, r.term) + 1,
		}}
	case kindRelease:
		if m.lock.Holder != "" && m.lock.Term == r.term {
			m.lock = lockRecord{Record: physical.Record{Term: r.term, Next: r.next}}
		}
	case kindAddress:
		for id, addr := range m.addrs {
			if addr == r.name {
				delete(m.addrs, id)
			}
		}
		if delete(m.addrs, r.holder); r.name != "" {
			m.addrs[r.holder] = r.name
		}
	}
	return nil
}

var drawKey = rapid.SampledFrom([]string{"a", "a/b", "a/b/c", "a/c", "a-b", "b", "b/x", "é/ü"})
var drawValue = rapid.SampledFrom([]string{"", "1", "2", strings.Repeat("long", 3000)})
var drawTerm = rapid.Uint64Range(0, 6)

func drawFence(rt *rapid.T) physical.Fence {
	f := physical.Fence{Lineage: rapid.SampledFrom([]string{"", "x", "y"}).Draw(rt, "lineage"), Term: drawTerm.Draw(rt, "term")}
	if f.Lineage == "" {
		return physical.Fence{}
	}
	return f
}

func drawRequest(rt *rapid.T, fence physical.Fence) request {
	r := request{kind: rapid.SampledFrom([]requestKind{kindCommit, kindCommit, kindCommit, kindRaise, kindAcquire, kindRelease, kindAddress}).Draw(rt, "kind")}
	mine := rapid.Bool().Draw(rt, "mine")
	switch r.kind {
	case kindCommit:
		if r.fenced = rapid.Bool().Draw(rt, "fenced") || mine && !fence.IsZero(); r.fenced {
			if r.fence = fence; !mine {
				r.fence = drawFence(rt)
			}
		}
		for range rapid.IntRange(0, 4).Draw(rt, "ops") {
			r.ops = append(r.ops, physical.Op{
				Kind: physical.OpKind(rapid.IntRange(1, 4).Draw(rt, "op")), Key: drawKey.Draw(rt, "key"), Value: []byte(drawValue.Draw(rt, "value")),
			})
		}
	case kindRaise:
		if r.fence = fence; !mine {
			r.fence = drawFence(rt)
		}
		r.to = physical.Fence{Lineage: "x", Term: drawTerm.Draw(rt, "to"), Nonce: [16]byte{1}}
	case kindAcquire:
		r.holder, r.name, r.term = "h"+drawKey.Draw(rt, "holder"), "n", drawTerm.Draw(rt, "above")
	case kindRelease:
		r.term, r.next = drawTerm.Draw(rt, "term"), "next"
	case kindAddress:
		r.holder, r.name = "h"+drawKey.Draw(rt, "node"), rapid.SampledFrom([]string{"", "a:1", "b:1"}).Draw(rt, "addr")
	}
	return r
}

func (m *fsmModel) compare(t testing.TB, s *state) {
	t.Helper()
	if h := s.header(); h.fence != m.fence || h.lock != m.lock || !maps.Equal(h.addrs, m.addrs) {
		t.Fatalf("fence %v, lock %+v, addresses %v; want %+v", h.fence, h.lock, h.addrs, m)
	}
	var keys []string
	var list func(prefix string)
	list = func(prefix string) {
		names, err := s.list(prefix, "", 0)
		must(t, err)
		if !slices.IsSorted(names) {
			t.Fatalf("%q lists %q", prefix, names)
		}
		for _, n := range names {
			if strings.HasSuffix(n, "/") {
				list(prefix + n)
			} else {
				keys = append(keys, prefix+n)
			}
		}
		for i := range names { // pages of every size, from every place
			page, err := s.list(prefix, names[i], 2)
			must(t, err)
			if want := names[i+1 : min(len(names), i+3)]; len(want) != len(page) || len(want) > 0 && !reflect.DeepEqual(page, want) {
				t.Fatalf("%q after %q lists %q, want %q", prefix, names[i], page, want)
			}
		}
	}
	list("")
	if len(keys) != len(m.entries) {
		t.Fatalf("keys %q, want %v", keys, m.entries)
	}
	for k, want := range m.entries {
		if v, err := s.get(k); err != nil || string(v) != want {
			t.Fatalf("%q holds %q, %v; want %q", k, v, err, want)
		}
	}
}

// The state machine does what the contracts say, however entries are batched, repeated by a restart, or
// carried through a snapshot; and the same on every node.
func TestMachineModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "fsm")
		must(t, err)
		path := filepath.Join(dir, "state.db")
		s, err := openState(path)
		must(t, err)
		m := &machine{state: s, fail: func(err error) { t.Error(err) }}
		want := &fsmModel{entries: map[string]string{}, addrs: map[string]string{}}
		index, raftTerm := uint64(0), uint64(1)
		var log []*hraft.Log
		for range rapid.IntRange(1, 12).Draw(rt, "batches") {
			var batch []*hraft.Log
			var errs [][]error
			for range rapid.IntRange(1, 4).Draw(rt, "entries") {
				data := []byte{commandFormat}
				var entryErrs []error
				raftTerm += rapid.Uint64Range(0, 1).Draw(rt, "raft term")
				for range rapid.IntRange(1, 4).Draw(rt, "requests") {
					r := drawRequest(rt, want.fence)
					data = r.append(data)
					entryErrs = append(entryErrs, want.apply(raftTerm, &r))
				}
				index += rapid.Uint64Range(1, 2).Draw(rt, "gap")
				batch = append(batch, &hraft.Log{Index: index, Term: raftTerm, Data: data})
				errs = append(errs, entryErrs)
			}
			again := 0
			switch rapid.IntRange(0, 3).Draw(rt, "interlude") {
			case 0: // the process was restarted: entries that are applied come again
				must(t, m.state.close())
				s, err := openState(path)
				must(t, err)
				m.state = s
				again = rapid.IntRange(0, len(log)).Draw(rt, "again")
			case 1:
				var snap bytes.Buffer
				fs, err := m.Snapshot()
				must(t, err)
				must(t, fs.Persist(&memorySink{Buffer: &snap}))
				must(t, m.Restore(io.NopCloser(&snap)))
			}
			out := m.ApplyBatch(append(slices.Clone(log[len(log)-again:]), batch...))[again:]
			log = append(log, batch...)
			for i := range batch {
				for j, r := range out[i].([]result) {
					if !errors.Is(r.err, errs[i][j]) || (r.err == nil) != (errs[i][j] == nil) {
						t.Fatalf("entry %d, request %d: %v, want %v", batch[i].Index, j, r.err, errs[i][j])
					}
				}
			}
			want.compare(t, m.state)
		}
		must(t, m.state.close())
	})
}

type memorySink struct{ *bytes.Buffer }

func (memorySink) ID() string    { return "memory" }
func (memorySink) Cancel() error { return nil }
func (memorySink) Close() error  { return nil }

// An entry that this version cannot read stops the node: to pass over it would make the nodes differ.
func TestMachineStopsAtWhatItCannotRead(t *testing.T) {
	m := openTestState(t)
	var failed error
	m.fail = func(err error) { failed = err }
	out := m.ApplyBatch([]*hraft.Log{{Index: 1, Term: 1, Data: []byte{commandFormat + 1}}})
	if !errors.Is(failed, errCommand) || out[0].(error) == nil || m.state.header().index != 0 {
		t.Errorf("got %v, state at %d", failed, m.state.header().index)
	}
}

func TestCommandRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var want []request
		data := []byte{commandFormat}
		for range rapid.IntRange(1, 5).Draw(rt, "n") {
			r := drawRequest(rt, drawFence(rt))
			want = append(want, r)
			if len(r.append(nil)) > r.size() {
				t.Fatalf("%d bytes, said %d", len(r.append(nil)), r.size())
			}
			data = r.append(data)
		}
		got, err := decodeEntry(data)
		must(t, err)
		opt := cmp.Options{cmp.AllowUnexported(request{}), cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) }),
			cmp.Transformer("ops", func(o []physical.Op) string { return fmt.Sprint(o) })}
		if diff := cmp.Diff(want, got, opt); diff != "" {
			t.Fatal(diff)
		}
	})
}
