package kv

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/slots"
	"github.com/locum-ha/locum/physical"
)

func nth(slot string, n int) Request { return Request{ID: strconv.FormatInt(int64(n), 36), Slot: slot} }

func repeated(r Request) Request {
	r.Repeat = true
	return r
}

// once writes a path, and returns the answer as the client sees it.
func once(t *testing.T, s *Store, path, data string, r Request) string {
	t.Helper()
	m, err := s.Write(t.Context(), path, Object(data), WriteOptions{Request: r})
	must(t, err)
	return string(m.AppendJSON(nil))
}

// A write of a new path is one entry: its request needs none of its own.
func TestOneEntry(t *testing.T) {
	s, v := newStore(t)
	remote(s)
	puts := 0
	v.setCommit(func(ops []physical.Op, commit func() error) error {
		for _, op := range ops {
			if op.Kind == physical.OpPut {
				puts++
			}
		}
		return commit()
	})
	for i := range 5 {
		once(t, s, fmt.Sprint("p", i), `{}`, nth("n/1/1", i))
	}
	if puts != 5 || v.gets != 1 { // the settings for all paths
		t.Errorf("%d puts, %d reads", puts, v.gets)
	}
}

// P6: a write is repeated with the same answer and carried out once, whatever became of the path between, also on the next active node.
func TestRepeatOfRecorded(t *testing.T) {
	for name, between := range map[string]func(*testing.T, *Store){
		"nothing": func(*testing.T, *Store) {},
		"written": func(t *testing.T, s *Store) { once(t, s, "a", `{"v":2}`, nth("n/1/2", 2)) },
		"out of the window": func(t *testing.T, s *Store) {
			for i := range 3 * mostRecords {
				once(t, s, "a", `{"v":2}`, nth(fmt.Sprint("m/1/", i), 2))
			}
		},
		"deleted":   func(t *testing.T, s *Store) { must(t, s.DeleteLatest(t.Context(), "a", nth("n/1/2", 2))) },
		"destroyed": func(t *testing.T, s *Store) { must(t, s.Destroy(t.Context(), "a", []uint64{1}, nth("n/1/2", 2))) },
		"removed":   func(t *testing.T, s *Store) { must(t, s.DeleteMetadata(t.Context(), "a", nth("n/1/2", 2))) },
		"removed twice": func(t *testing.T, s *Store) {
			must(t, s.DeleteMetadata(t.Context(), "a", nth("n/1/2", 2)))
			once(t, s, "a", `{"v":2}`, nth("n/1/2", 3))
			must(t, s.DeleteMetadata(t.Context(), "a", nth("n/1/2", 4)))
		},
		"described": func(t *testing.T, s *Store) {
			must(t, s.UpdateMetadata(t.Context(), "a", MetadataUpdate{CustomMetadata: map[string]string{"k": "v"}}, nth("n/1/2", 2)))
		},
		"described anew": func(t *testing.T, s *Store) {
			must(t, s.PatchMetadata(t.Context(), "a", MetadataPatch{CustomMetadata: map[string]*string{"k": ptr("v")}}, nth("n/1/2", 2)))
		},
		"the slot of a process that is gone": func(t *testing.T, s *Store) {
			once(t, s, "a", `{"v":2}`, nth("n/0/1", 99))
			must(t, s.DeleteMetadata(t.Context(), "a", nth("n/1/2", 2)))
		},
		"an old request of the slot, late": func(t *testing.T, s *Store) {
			s.slots.Arrived(nth("n/1/1", 4))
			must(t, s.DeleteMetadata(t.Context(), "a", nth("n/1/2", 2)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, v := newStore(t)
			must(t, s.UpdateConfig(t.Context(), ConfigUpdate{MaxVersions: ptr(3), DeleteVersionAfter: ptr(time.Hour)}, Request{}))
			first := nth("n/1/1", 5)
			want := once(t, s, "a", `{"v":1}`, first)
			between(t, s)
			for _, s := range []*Store{s, New(v), New(v)} {
				for range 2 {
					if got := once(t, s, "a", `{"v":1}`, repeated(first)); got != want {
						t.Errorf("%s, and first %s", got, want)
					}
				}
				// The first attempt comes to the lock only after its own repeat.
				if got := once(t, s, "a", `{"v":1}`, first); got != want {
					t.Errorf("%s, and first %s", got, want)
				}
				between(t, s)
			}
			m, err := s.ReadMetadata(t.Context(), "a")
			if err == nil && m.CurrentVersion > 0 {
				for _, version := range m.Versions[1:] {
					if strings.Contains(read(t, s, "a", version.Version), `"v":1`) {
						t.Errorf("version %d is the first request's again", version.Version)
					}
				}
			} else if err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
}

// What a slot holds of a later request stays, whatever is moved into it.
func TestSettledBehindALaterOne(t *testing.T) {
	s, v := newStore(t)
	ctx := t.Context()
	once(t, s, "a", `{}`, nth("n/1/1", 1))
	once(t, s, "b", `{}`, nth("n/1/2", 2))
	must(t, s.DeleteLatest(ctx, "b", nth("n/1/1", 3)))
	next := New(v) // knows nothing of the slots
	must(t, next.DeleteMetadata(ctx, "a", nth("n/1/3", 4)))
	e, err := v.store.Get(ctx, slots.Prefix+"n/1/1")
	if err != nil || !strings.Contains(string(e.Value), `"id":"3"`) {
		t.Errorf("%v, %v", e, err)
	}
}

// What is over leaves nothing behind: neither slots nor records pile up.
func TestRecordsAreBounded(t *testing.T) {
	s, v := newStore(t)
	n := 0
	for round := range 10 {
		for slot := range 4 * mostRecords {
			n++
			once(t, s, "a", `{}`, nth(fmt.Sprint("n/", round/5, "/", slot), n))
			_, m, err := s.readMeta(t.Context(), metaKey("a"))
			must(t, err)
			if len(m.records) > mostRecords+1 {
				t.Fatalf("%d records", len(m.records))
			}
		}
	}
	if got := len(keys(t, v, slots.Prefix)); got > 8*mostRecords {
		t.Errorf("%d slots", got)
	}
	s, v = newStore(t)
	for i := range 50 {
		once(t, s, fmt.Sprint("p", i), `{}`, nth(fmt.Sprint("n/1/", i%5), 2*i))
	}
	for i := range 45 {
		must(t, s.DeleteMetadata(t.Context(), fmt.Sprint("p", i), Request{}))
	}
	if got := keys(t, v, slots.Prefix); len(got) != 0 {
		t.Errorf("of requests that are over there is kept %v", got)
	}
}

// A request whose id is no number that could be compared keeps its answer in its slot.
func TestUnnumbered(t *testing.T) {
	s, v := newStore(t)
	once(t, s, "a", `{}`, Request{ID: "not-a-number", Slot: "n/1/1"})
	if got := keys(t, v, slots.Prefix); len(got) != 1 {
		t.Error(got)
	}
	_, m, err := s.readMeta(t.Context(), metaKey("a"))
	if err != nil || len(m.records) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// Answered says of a path's requests what Write would, without carrying any out.
func TestAnswered(t *testing.T) {
	s, _ := newStore(t)
	once(t, s, "a", `{}`, nth("n/1/1", 1))
	for want, c := range map[bool]struct {
		path string
		req  Request
	}{true: {"a", nth("n/1/1", 1)}, false: {"a", nth("n/1/1", 2)}} {
		if got, err := s.Answered(t.Context(), c.path, repeated(c.req)); got != want || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	if got, err := s.Answered(t.Context(), "none", repeated(nth("n/1/1", 1))); got || err != nil {
		t.Error(got, err)
	}
	// Nobody waits for a request whose slot was used again.
	if _, err := s.Write(t.Context(), "a", Object(`{}`), WriteOptions{Request: nth("n/1/1", 0)}); !errors.Is(err, physical.ErrUnknown) {
		t.Error(err)
	}
}
