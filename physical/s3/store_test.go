package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

// "What a write costs in requests, and how it grows, is stated": one for each value beyond 2 KiB, one for each page that is
// touched, one for the index; and commits that wait share them. The numbers are those of the package's comment.
func TestCost(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	s := testStore(t, f)
	cost := func(ops ...physical.Op) (puts, swaps int) {
		t.Helper()
		p, w := f.Requests("put"), f.Requests("swap")
		if err := s.Commit(t.Context(), nil, ops...); err != nil {
			t.Fatal(err)
		}
		return f.Requests("put") - p, f.Requests("swap") - w
	}
	if puts, swaps := cost(physical.Put("a", []byte("short"))); puts != 1 || swaps != 1 {
		t.Errorf("a short value cost %d puts and %d swaps, want a page and the index", puts, swaps)
	}
	if puts, swaps := cost(physical.Put("b", make([]byte, inlineMax+1)), physical.Put("c", make([]byte, 1<<20))); puts != 3 || swaps != 1 {
		t.Errorf("two long values cost %d puts and %d swaps, want two values, a page and the index", puts, swaps)
	}
	const many = 2000
	for i := 0; i < many; i += 100 {
		var ops []physical.Op
		for j := range 100 {
			ops = append(ops, physical.Put(fmt.Sprintf("k/%05d", i+j), make([]byte, 1024)))
		}
		if err := s.Commit(t.Context(), nil, ops...); err != nil {
			t.Fatal(err)
		}
	}
	if puts, swaps := cost(physical.Put("k/01000", make([]byte, 1024))); puts != 1 || swaps != 1 {
		t.Errorf("among many pages a value cost %d puts and %d swaps, want one page and the index", puts, swaps)
	}
	v, err := s.views.present(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := marshalIndex(v.index)
	if err != nil {
		t.Fatal(err)
	}
	if perPage := len(data) / len(v.Pages); len(v.Pages) < many*1024/pageMax || len(v.Pages) > 4*many*1024/pageMax || perPage > 250 {
		t.Errorf("%d entries of 1 KiB make %d pages, and the index has %d bytes for each", many, len(v.Pages), perPage)
	}

	// Everything that is written while a swap is under way goes into the next one.
	f.SlowWrites(20 * time.Millisecond)
	swaps := f.Requests("swap")
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			if err := s.Commit(t.Context(), nil, physical.Put(fmt.Sprintf("together/%d", i), nil)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := f.Requests("swap") - swaps; n > 8 {
		t.Errorf("64 commits at once took %d swaps", n)
	}
}

// Reads that wait share one question whether the index is still the one that is known.
func TestReadsShare(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	s := testStore(t, f)
	if err := s.Commit(t.Context(), nil, physical.Put("a", []byte("1"))); err != nil {
		t.Fatal(err)
	}
	before := f.Requests("get")
	var all sync.WaitGroup
	const readers, each = 64, 20
	for range readers {
		all.Go(func() {
			for range each {
				if _, err := s.Get(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := f.Requests("get") - before; n > readers*each/2 {
		t.Errorf("%d reads took %d requests", readers*each, n)
	}
}

// A request that may be made twice is made again where the service answers 503, as it does of a request in a million; what was
// uploaded for a swap that did not come is not left behind.
func TestServiceThatIsBusy(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	s := testStore(t, f)
	refuse := func(most int, which func(*http.Request) bool) (left func() int) {
		var mu sync.Mutex
		f.Refuse(func(r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if most == 0 || !which(r) {
				return false
			}
			most--
			return true
		})
		return func() int { mu.Lock(); defer mu.Unlock(); return most }
	}
	plainPut := func(r *http.Request) bool {
		return r.Method == http.MethodPut && r.Header.Get("If-Match") == "" && r.Header.Get("If-None-Match") == ""
	}
	left := refuse(1, plainPut)
	if err := s.Commit(t.Context(), nil, physical.Put("a", make([]byte, inlineMax+1))); err != nil || left() != 0 {
		t.Errorf("a commit, of which one upload was answered 503: %v, %d refusals left", err, left())
	}
	other := testStore(t, f)
	left = refuse(1, func(r *http.Request) bool { return r.Method == http.MethodGet })
	if e, err := other.Get(t.Context(), "a"); err != nil || len(e.Value) != inlineMax+1 || left() != 0 {
		t.Errorf("a read, of which one request was answered 503: %v, %d refusals left", err, left())
	}
	refuse(1000, plainPut)
	if err := s.Commit(t.Context(), nil, physical.Put("b", make([]byte, inlineMax+1))); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("a commit whose uploads are refused: %v", err)
	}
	s.garbage.mu.Lock()
	defer s.garbage.mu.Unlock()
	if len(s.garbage.young) < 2 { // the value and the page, beside what the first commit replaced
		t.Errorf("what was uploaded in vain is not remembered: %q", s.garbage.young)
	}
}

// "409 and 412 both mean lost": a swap that is refused is worked out anew on the newer index, and one that failed without an answer
// is settled by the marks in the index, so that nothing is applied twice and nothing that was acknowledged is lost.
func TestSwapsThatFail(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	stores := []*Store{testStore(t, f), testStore(t, f), testStore(t, f)}
	f.SlowWrites(2 * time.Millisecond)
	before := map[string]int{"409": f.Requests("409"), "412": f.Requests("412")}
	var all sync.WaitGroup
	const each = 15
	for n, s := range stores {
		for w := range 4 {
			all.Go(func() {
				for i := range each {
					if err := s.Commit(t.Context(), nil, physical.Put(fmt.Sprintf("w/%d-%d-%d", n, w, i), nil)); err != nil {
						t.Errorf("commit: %v", err)
					}
				}
			})
		}
	}
	all.Wait()
	names, err := stores[0].List(t.Context(), "w/", "", 0)
	if err != nil || len(names) != 3*4*each {
		t.Errorf("%d entries, %v, want %d", len(names), err, 3*4*each)
	}
	for code, n := range before {
		if f.Requests(code) == n {
			t.Errorf("no swap was refused with %s: the test does not test it", code)
		}
	}
}

// A write whose answer is lost on its way back is not carried out twice.
func TestSwapWithoutAnswer(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	s := testStore(t, f)
	if err := s.Commit(t.Context(), nil, physical.Put("count", []byte("0"))); err != nil {
		t.Fatal(err)
	}
	cut := &cutting{to: s.transport}
	s.objects.client = s.cfg.clientOver(t, cut)
	cut.next(1)
	if err := s.Commit(t.Context(), nil, physical.RequireValue("count", []byte("0")), physical.Put("count", []byte("1"))); err != nil {
		t.Errorf("a swap whose answer was lost: %v", err)
	}
	if e, err := s.Get(t.Context(), "count"); err != nil || string(e.Value) != "1" {
		t.Errorf("it holds %v, %v", e, err)
	}
	f.Refuse(func(r *http.Request) bool { return r.Header.Get("If-Match") != "" })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Commit(ctx, nil, physical.Put("never", nil)); !errors.Is(err, physical.ErrUnknown) {
		t.Errorf("a swap that is never answered clearly: %v", err)
	}
	f.Refuse(nil)
}

// Objects that are in no index any more are deleted, those that a crash left behind by a sweep after the next raise of the fence; and
// nothing that is in use.
func TestGarbage(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	s := testStore(t, f)
	for i := range 20 {
		if err := s.Commit(t.Context(), nil, physical.Put("a", []byte(strings.Repeat("x", i))), physical.Put("long", make([]byte, inlineMax+1+i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.objects.put(t.Context(), objectPrefix(3)+"left-by-a-crash", []byte("x")); err != nil {
		t.Fatal(err)
	}
	future := objectPrefix(1<<40) + "of-a-write-under-way"
	if err := s.objects.put(t.Context(), future, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.RaiseFence(t.Context(), physical.Fence{}, physical.Fence{Lineage: "l", Term: 1}); err != nil {
		t.Fatal(err)
	}
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := f.Objects("test/" + objectsDir)
		if len(left) == 3 && slices.Contains(left, "test/"+future) {
			break
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("left are %q, want a page, a value and the write under way", left)
		}
	}
	if e, err := s.Get(t.Context(), "long"); err != nil || len(e.Value) != inlineMax+20 {
		t.Errorf("what is in use: %v", err)
	}
}

// A page that is damaged, or of a newer format, is an error and no wrong answer; what was written is read back.
func TestPageFormat(t *testing.T) {
	p := newPage([]item{newItem("a", nil), newItem("b", []byte("value")), {key: "c", object: "objects/x", size: 7}})
	data := p.marshal()
	back, err := parsePage(data)
	if err != nil || len(back.items) != 3 || !bytes.Equal(back.items[1].value, []byte("value")) || back.items[2].object != "objects/x" || back.bytes != p.bytes {
		t.Fatalf("read back: %+v, %v", back, err)
	}
	frozen := "LP\x01\x02\x01a\x00\x00\x01b\x00\x05value"
	if got := newPage(p.items[:2]).marshal(); string(got) != frozen {
		t.Errorf("the format has changed: %q, want %q", got, frozen)
	}
	for n := range data {
		if _, err := parsePage(data[:n]); err == nil {
			t.Errorf("a page cut after %d bytes is taken", n)
		}
	}
	data[2]++
	if _, err := parsePage(data); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("a newer format: %v", err)
	}
}

// A service that ignores conditions is refused: on it two nodes could write at once. So is what is not there.
func TestOpenRefuses(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	cfg := testConfig(f)
	cfg.Bucket = "other"
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `there is no bucket "other"`) {
		t.Errorf("a bucket that is not there: %v", err)
	}
	for _, header := range []string{"If-None-Match", "If-Match"} {
		f.IgnoreConditions(header)
		if _, err := Open(t.Context(), testConfig(f)); err == nil || !strings.Contains(err.Error(), "ignores "+header) {
			t.Errorf("a service without %s: %v", header, err)
		}
	}
	if _, err := Open(t.Context(), Config{}); err == nil || !strings.Contains(err.Error(), "bucket is missing") {
		t.Errorf("no bucket: %v", err)
	}
}

// Nodes that start together all start, though their writes meet (409), and a service that is busy once (503) stops none.
func TestOpenTogether(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	f.SlowWrites(2 * time.Millisecond)
	var once sync.Once
	f.Refuse(func(*http.Request) (busy bool) { once.Do(func() { busy = true }); return busy })
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := Open(t.Context(), testConfig(f))
			if err != nil {
				t.Errorf("one of several that start at once: %v", err)
				return
			}
			s.Close()
		})
	}
	all.Wait()
	if f.Requests("409") == 0 {
		t.Error("they did not meet: the test does not test it")
	}
}

// What the service refuses is said with the right or the setting that it takes, and is no unknown outcome.
func TestRefusals(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	s := testStore(t, f)
	for _, c := range []struct {
		status int
		code   string
		want   string
	}{
		{http.StatusForbidden, "AccessDenied", `s3:GetObject, s3:PutObject and s3:DeleteObject on the objects below "test/", and s3:ListBucket on the bucket "locum-test"`},
		{http.StatusForbidden, "SignatureDoesNotMatch", "secret_key is wrong"},
		{http.StatusForbidden, "RequestTimeTooSkewed", "clock is wrong"},
		{http.StatusBadRequest, "ExpiredToken", "have run out"},
		{http.StatusMovedPermanently, "PermanentRedirect", "another region than eu-central-1: set region"},
		{http.StatusTemporaryRedirect, "TemporaryRedirect", "another region than eu-central-1: set region"},
		{http.StatusBadRequest, "AuthorizationHeaderMalformed", "another region than eu-central-1: set region"},
	} {
		f.Answer(c.status, c.code)
		_, swap := s.objects.swap(t.Context(), "x", nil, "")
		_, open := Open(t.Context(), testConfig(f))
		for what, err := range map[string]error{"swap": swap, "open": open} {
			if !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d %s: %s: %v, want %q in it", c.status, c.code, what, err, c.want)
			}
		}
	}
	f.Answer(0, "")
	f.RefuseDeletes()
	if err := s.objects.remove(t.Context(), []string{"a", "b"}); err == nil || !strings.Contains(err.Error(), "delete a (2 of 2)") || !strings.Contains(err.Error(), "s3:DeleteObject") {
		t.Errorf("without the right to delete: %v", err)
	}
}
