package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// TestUnknownIsNotRepeated: an entry that is in the log when its leadership ends, with nobody known to have applied it, may have been
// carried out. Its writers are told so and nothing else: whoever took it for "certainly not" would carry it out a second time.
func TestUnknownIsNotRepeated(t *testing.T) {
	m := &member{cfg: &Config{OperationTimeout: time.Minute}, id: "a", book: newBook()}
	m.agreed.Store(&[]string{"a:1", "b:1", "c:1", "d:1", "e:1"})
	ctx, end := context.WithCancelCause(t.Context())
	l := &lead{m: m, ctx: ctx, wake: make(chan struct{})}
	p := &pending{level: Quorum, done: make(chan outcome, 1)}
	l.landLater(&flight{batch: []*pending{p}}, make([]response, 1), 7)
	end(errNotLeader)
	out := <-p.done
	m.work.Wait()
	if !errors.Is(out.err, ErrUnknown) || errors.Is(out.err, ErrNotDone) {
		t.Fatalf("the leadership ended: %v", out.err)
	}
	both := fmt.Errorf("%w, though %w", ErrUnknown, errNotLeader)
	if got := forwardedOutcome(t, outcome{err: both}); !errors.Is(got.err, ErrUnknown) || errors.Is(got.err, ErrNotDone) {
		t.Fatalf("told through another node: %v", got.err)
	}
}

// forwardedOutcome is what a node hears of an outcome that the leader tells it.
func forwardedOutcome(t *testing.T, out outcome) outcome {
	t.Helper()
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	s := &writeServer{conn: here, wake: make(chan struct{}, 1)}
	s.answer(1, out)
	d := decoder{b: endFrame(s.out)[5:]}
	if id := d.uvarint(); id != 1 {
		t.Fatalf("the answer is to %d", id)
	}
	got := d.outcome()
	if d.bad || len(d.b) != 0 {
		t.Fatal("the answer cannot be read")
	}
	return got
}

// TestLinkIsBounded: what waits to be sent to the leader is bounded, and never becomes a frame that the leader refuses (P12): that would end
// the connection for all of this node's clients.
func TestLinkIsBounded(t *testing.T) {
	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	l := &leaderLink{conn: here, waiting: map[uint64]chan outcome{}, work: &sync.WaitGroup{}}
	data := make([]byte, 15<<20)
	r := bufio.NewReader(there)
	l.writing = true // somebody is about to write
	asked := 0
	for ; ; asked++ {
		if _, _, err := l.ask(askWrite, Quorum, data); errors.Is(err, ErrBusy) && errors.Is(err, ErrNotDone) {
			break
		} else if err != nil || asked == 10 {
			t.Fatalf("request %d: %v", asked, err)
		}
	}
	l.work.Go(func() { l.flush(true) })
	frame, err := readFrame(r, nil)
	if l.work.Wait(); err != nil || len(frame) < asked*len(data) {
		t.Fatalf("%d requests became %d bytes, %v", asked, len(frame), err)
	}
}

// TestLargeAnswers: a transaction answers with so much and no more, and removes nothing that it cannot hand over; too much for the
// connection of a node costs its own caller the answer, and nobody else (P9, P12).
func TestLargeAnswers(t *testing.T) {
	st, large := newState(newEvents()), make([]byte, 8<<20)
	r := request{}
	for i := range 5 {
		key := string(rune('a' + i))
		st.apply(&batch{stamp: 1, requests: []request{{ops: []Op{{Kind: OpPut, Cache: "c", Key: key, Value: large}}}}})
		r.ops = append(r.ops, Op{Kind: OpDelete, Cache: "c", Key: key, WantOld: true})
	}
	r.ops = append(r.ops, Op{Kind: OpPut, Cache: "c", Key: "e", If: IfAbsent}, Op{Kind: OpGet, Cache: "c", Key: "e"})
	out := st.apply(&batch{stamp: 1, requests: []request{r}})[0]
	for i, result := range out.results {
		whole := i < maxTxn/len(large)
		if result.Done != whole || whole != (len(result.Value) == len(large)) || !result.Found {
			t.Errorf("operation %d: done %v, found %v, %d bytes, %v", i, result.Done, result.Found, len(result.Value), result.Err)
		}
		if refused := errors.Is(result.Err, ErrTooLarge); refused != (!whole && i != 5) {
			t.Errorf("operation %d: %v", i, result.Err)
		}
	}
	if n := st.table("c").count.Load(); n != 1 {
		t.Errorf("%d entries are left", n)
	}

	here, there := net.Pipe()
	defer func() { _, _ = here.Close(), there.Close() }()
	s := &writeServer{conn: here, wake: make(chan struct{}, 1)}
	for id := range uint64(4) {
		s.answer(id, outcome{resp: response{results: []Result{{Done: true, Value: large}, {Done: true, Value: large}, {Done: true, Value: large}}}})
	}
	s.answer(4, outcome{})
	frame := endFrame(s.out)
	if len(frame) > maxFrame {
		t.Fatalf("a frame of %d bytes", len(frame))
	}
	d := decoder{b: frame[5:]}
	for id := range uint64(5) {
		if got := d.uvarint(); got != id {
			t.Fatalf("answer %d is to %d", id, got)
		}
		if got := d.outcome(); d.bad || errors.Is(got.err, ErrUnknown) != (id == 2 || id == 3) {
			t.Errorf("answer %d: %v", id, got.err)
		}
	}
	if err := here.SetDeadline(time.Now()); err != nil {
		t.Errorf("the connection ended: %v", err)
	}
}
