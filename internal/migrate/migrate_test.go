package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/internal/migrate"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// shared says of a store in memory that others can open it, as those of this test do.
type shared struct{ *memory.Handle }

func (s shared) Caps() physical.Caps {
	caps := s.Handle.Caps()
	caps.Shared = true
	return caps
}

// failing fails the commit with this number, counted from 1, before or after it is carried out.
type failing struct {
	physical.Backend
	at      int
	commits int
}

var errCut = errors.New("cut")

func (f *failing) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if f.commits++; f.commits == f.at {
		return errCut
	}
	return f.Backend.Commit(ctx, fence, ops...)
}

// fill gives a store the entries of a cluster: a tree, an entry and a folder of one name, empty values.
func fill(t *testing.T, b physical.Backend) map[string]string {
	t.Helper()
	want := map[string]string{"core/keyring": "ring", "core/token/a": "t", "kv/a": "", "kv/a/b": "x", "kv/a-b": "y", "kv/a/b/c": "z"}
	for i := range 1203 {
		want[fmt.Sprintf("kv/many/%d/%04d", i%7, i)] = strings.Repeat("v", i%50)
	}
	var ops []physical.Op
	for key, value := range want {
		ops = append(ops, physical.Put(key, []byte(value)))
	}
	ops = append(ops, physical.Put("core/leader", []byte("an old life's")))
	if err := b.Commit(t.Context(), nil, ops...); err != nil {
		t.Fatal(err)
	}
	if err := b.RaiseFence(t.Context(), physical.Fence{}, physical.Fence{Lineage: "old", Term: 41}); err != nil {
		t.Fatal(err)
	}
	return want
}

func options(from, to physical.Backend) migrate.Options {
	return migrate.Options{Source: from, Destination: to, Last: []string{"core/keyring"}, Drop: []string{"core/leader"}}
}

// contents reads everything.
func contents(t *testing.T, b physical.Backend, prefix string, into map[string]string) {
	t.Helper()
	names, err := b.List(t.Context(), prefix, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			contents(t, b, prefix+name, into)
			continue
		}
		e, err := b.Get(t.Context(), prefix+name)
		if err != nil {
			t.Fatal(err)
		}
		into[prefix+name] = string(e.Value)
	}
}

func wantContents(t *testing.T, b physical.Backend, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	contents(t, b, "", got)
	for key, value := range want {
		if now, ok := got[key]; !ok || now != value {
			t.Errorf("%q holds %q (there: %v), want %q", key, now, ok, value)
		}
		delete(got, key)
	}
	for key := range got {
		t.Errorf("%q is there too", key)
	}
}

// All entries come over but those of the old life, under a fence of a new lineage above every term (design, "Fence": migrating
// never lowers the term); the source takes no writes of its last leader any more.
func TestMigrate(t *testing.T) {
	from, to := shared{memory.NewStore().Open()}, shared{memory.NewStore(memory.WithLimits(physical.Caps{MaxOps: 7, MaxCommit: 20 << 10})).Open()}
	want := fill(t, from)
	result, err := migrate.Run(t.Context(), options(from, to))
	if err != nil {
		t.Fatal(err)
	}
	wantContents(t, to, want)
	fence, err := to.Fence(t.Context())
	if err != nil || fence.Lineage == "old" || fence.Lineage != result.Lineage || fence.Term <= 42 || result.Term != fence.Term {
		t.Errorf("the destination's fence is %v, %v; the result %+v", fence, err, result)
	}
	if result.Entries != len(want) || result.Resumed {
		t.Errorf("%d entries, resumed %v, want %d", result.Entries, result.Resumed, len(want))
	}
	old := physical.Fence{Lineage: "old", Term: 41}
	if err := from.Commit(t.Context(), &old, physical.Put("late", nil)); !errors.Is(err, physical.ErrFenced) {
		t.Errorf("a late write to the source: %v", err)
	}
	if _, err := migrate.Run(t.Context(), options(from, to)); !errors.Is(err, migrate.ErrNotEmpty) {
		t.Errorf("a second migration: %v", err)
	}
}

// moody cannot serve twice before it serves each call; of a commit it loses the answer.
type moody struct {
	shared
	refused int
}

func (m *moody) cannot() bool {
	m.refused++
	return m.refused%3 != 0
}

func (m *moody) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if strings.HasPrefix(key, "core/") && m.cannot() {
		return nil, physical.ErrUnavailable
	}
	return m.shared.Get(ctx, key)
}

func (m *moody) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if prefix == "" && m.cannot() {
		return nil, physical.ErrUnavailable
	}
	return m.shared.List(ctx, prefix, after, limit)
}

func (m *moody) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if err := m.shared.Commit(ctx, fence, ops...); err != nil {
		return err
	}
	if m.cannot() {
		return physical.ErrUnknown
	}
	return nil
}

// "Every retry a back-off" (P12): a store that cannot serve for a while does not end a migration.
func TestStoresThatRestMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := shared{memory.NewStore().Open()}
		want := fill(t, inner)
		to := &moody{shared: shared{memory.NewStore().Open()}}
		began := time.Now()
		if _, err := migrate.Run(t.Context(), options(&moody{shared: inner}, to)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 150*time.Millisecond {
			t.Errorf("it took %v: there was no pause between the tries", took)
		}
		wantContents(t, to.shared, want)
	})
}

// Interrupted at any commit, it goes on behind the last one, and until the end the destination is nobody's cluster.
func TestInterrupted(t *testing.T) {
	for _, at := range []int{1, 2, 5, 12, 13, 14} {
		from, to := shared{memory.NewStore().Open()}, shared{memory.NewStore().Open()}
		want := fill(t, from)
		cut := &failing{Backend: to, at: at}
		_, err := migrate.Run(t.Context(), options(from, cut))
		if !errors.Is(err, errCut) {
			t.Fatalf("cut at commit %d: %v", at, err)
		}
		if _, err := to.Get(t.Context(), "core/keyring"); !errors.Is(err, physical.ErrNotFound) {
			t.Errorf("cut at commit %d, the destination has a keyring: %v", at, err)
		}
		counted := &failing{Backend: to}
		result, err := migrate.Run(t.Context(), options(from, counted))
		if err != nil || result.Entries != len(want) || result.Resumed != (at > 1) {
			t.Errorf("resumed after commit %d: %+v, %v", at, result, err)
		}
		if all := (len(want)+99)/100 + 2; counted.commits > all-at+2 {
			t.Errorf("resumed after commit %d it took %d commits of %d", at, counted.commits, all)
		}
		wantContents(t, to, want)
	}
}

// A node that still runs is noticed; so is a source that was used since an interruption.
func TestSourceChanged(t *testing.T) {
	from, to := shared{memory.NewStore().Open()}, shared{memory.NewStore().Open()}
	fill(t, from)
	o := options(from, to)
	o.Progress = func(p migrate.Progress) {
		now, err := from.Fence(t.Context())
		if err == nil && p.Verifying && now.Term == 42 {
			err = from.RaiseFence(t.Context(), now, physical.Fence{Lineage: "old", Term: 43})
		}
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := migrate.Run(t.Context(), o); !errors.Is(err, migrate.ErrChanged) {
		t.Errorf("a leader appeared meanwhile: %v", err)
	}
	if _, err := migrate.Run(t.Context(), options(from, to)); !errors.Is(err, migrate.ErrChanged) {
		t.Errorf("resumed on a source that was used: %v", err)
	}
}

// What is missing, or in the way, is said before anything is written.
func TestRefusals(t *testing.T) {
	empty, full := shared{memory.NewStore().Open()}, shared{memory.NewStore().Open()}
	if _, err := migrate.Run(t.Context(), options(empty, full)); !errors.Is(err, migrate.ErrEmpty) {
		t.Errorf("an empty source: %v", err)
	}
	fill(t, full)
	other := shared{memory.NewStore().Open()}
	if err := other.Commit(t.Context(), nil, physical.Put("mine", nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Run(t.Context(), options(full, other)); !errors.Is(err, migrate.ErrNotEmpty) {
		t.Errorf("a destination in use: %v", err)
	}
	small := shared{memory.NewStore(memory.WithLimits(physical.Caps{MaxValue: 40})).Open()}
	if _, err := migrate.Run(t.Context(), options(full, small)); !errors.Is(err, physical.ErrTooLarge) {
		t.Errorf("a destination with a smaller limit: %v", err)
	}
}

// A damaged copy is noticed.
func TestVerified(t *testing.T) {
	from, to := shared{memory.NewStore().Open()}, shared{memory.NewStore().Open()}
	fill(t, from)
	if _, err := migrate.Run(t.Context(), options(from, spoiling{to})); !errors.Is(err, migrate.ErrDiffers) {
		t.Errorf("got %v", err)
	}
}

type spoiling struct{ shared }

func (s spoiling) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	ops = slices.Clone(ops)
	for i := range ops {
		if ops[i].Key == "kv/a/b" {
			ops[i].Value = []byte("spoilt")
		}
	}
	return s.shared.Commit(ctx, fence, ops...)
}

// Moving the lock starts a new lineage above the last term, and forgets where the lock was.
func TestMoveLock(t *testing.T) {
	b := shared{memory.NewStore().Open()}
	fill(t, b)
	result, err := migrate.MoveLock(t.Context(), b, "core/token/a", "core/none")
	if err != nil || result.Term != 42 || result.Lineage == "old" {
		t.Errorf("%+v, %v", result, err)
	}
	if _, err := b.Get(t.Context(), "core/token/a"); !errors.Is(err, physical.ErrNotFound) {
		t.Errorf("the key is still there: %v", err)
	}
}
