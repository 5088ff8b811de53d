package cache

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Those who have just been answered are likely to ask again, and an entry of many costs little more than an entry of some. So, where they
// are many, there are two entries on their way in turn, each with the requests of about half of them: while one goes through the log, the
// others are answered and ask. The next entry waits for as many, but while there is no other only for so long.
const (
	gatherMany = 8
	gatherTime = 300 * time.Microsecond
	mostAloft  = 2
)

// flight is an entry on its way through the log.
type flight struct {
	id     uint64 // of the batch
	batch  []*pending
	quorum bool              // somebody waits for a majority
	took   int64             // when, see now
	future hraft.ApplyFuture // nil until raft has been asked
	asked  bool              // how it ended
}

// lane has entries take off that nobody else did.
func (l *lead) lane() {
	defer close(l.flying)
	for {
		l.mu.Lock()
		for !l.stopped && !l.due() {
			l.waits = true
			l.more.Wait()
		}
		l.waits = false
		stopped := l.stopped
		l.mu.Unlock()
		if stopped {
			l.order.Lock() // who is about to take off has
			defer l.order.Unlock()
			l.overdue(0)
			return
		}
		l.fly()
	}
}

// due reports whether it is time for the next entry. The caller holds mu.
func (l *lead) due() bool {
	switch n := len(l.queue); {
	case n == 0 || len(l.aloft) >= mostAloft:
		return false
	case l.bytes >= batchBytes || len(l.aloft) == 0 && now() >= l.patience:
		return true
	case len(l.aloft) > 0:
		return n >= max(l.expected, gatherMany/2)
	default:
		return n >= l.expected
	}
}

// fly puts what waits into an entry and that into the log, if it is time.
func (l *lead) fly() {
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	if l.stopped || !l.due() {
		l.mu.Unlock()
		return
	}
	n, size := 0, 0
	for n < len(l.queue) && (n == 0 || size+len(l.queue[n].data) <= batchBytes) {
		size += len(l.queue[n].data)
		n++
	}
	f := &flight{id: l.m.batchID.Add(1), batch: l.queue[:n:n], took: now()}
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.bytes -= size
	l.aloft = append(l.aloft, f)
	l.mu.Unlock()

	data := l.entry(f.id, n, size)
	for _, p := range f.batch {
		data = append(data, p.data...)
		f.quorum = f.quorum || p.level == Quorum
	}
	l.early.begin(f.id, f.batch)
	future := l.m.raft.Apply(data, l.m.cfg.ElectionTimeout)
	l.mu.Lock()
	f.future = future
	l.mu.Unlock()
}

// overdue has raft asked how the flights end that have been on their way for so long. Few are: to ask for each would wake a goroutine.
func (l *lead) overdue(age time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.aloft {
		if f.future != nil && !f.asked && now()-f.took >= int64(age) {
			f.asked = true
			l.flying <- f // has room for all that can be aloft at a time, and those that just were
		}
	}
}

// entry begins an entry of n requests.
func (l *lead) entry(id uint64, n, size int) []byte {
	data := make([]byte, batchHead, batchHead+16+size)
	data[0] = entryFormat
	binary.LittleEndian.PutUint64(data[1:], id)
	data = binary.AppendVarint(data, l.time())
	return binary.AppendUvarint(data, uint64(n))
}

// watch answers the requests of the entries that did not come to their end. Raft forgets an entry whose turn to be applied had come when
// it is shut down, and never answers: that is not waited for.
func (l *lead) watch() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.outcomes()
	}()
	select {
	case <-done:
		return
	case <-l.m.quiet:
	}
	l.mu.Lock()
	left := slices.Clone(l.aloft)
	l.mu.Unlock()
	for _, f := range left {
		l.land(f, nil, 0, fmt.Errorf("%w: %w", ErrUnknown, errStopping))
	}
}

// outcomes asks raft how entries ended.
func (l *lead) outcomes() {
	for f := range l.flying {
		if err := f.future.Error(); err != nil {
			l.land(f, nil, 0, l.failure(err))
			continue
		}
		responses, _ := f.future.Response().([]response) // none if it cannot be understood
		l.land(f, responses, f.future.Index(), nil)
	}
}

// arrived: the entry of a batch has been applied here. Its requests are answered by the goroutine that applies: one less to be woken.
func (l *lead) arrived(id, index uint64, responses []response) {
	l.mu.Lock()
	i := slices.IndexFunc(l.aloft, func(f *flight) bool { return f.id == id })
	var f *flight
	if i >= 0 {
		f = l.aloft[i]
	}
	l.mu.Unlock()
	if f != nil {
		l.land(f, responses, index, nil)
	}
}

// land ends a flight, once: it answers the requests, and says when the next entry is due.
func (l *lead) land(f *flight, responses []response, index uint64, err error) {
	l.mu.Lock()
	i := slices.Index(l.aloft, f)
	if i < 0 {
		l.mu.Unlock()
		return
	}
	asking := len(l.queue)
	for _, one := range l.aloft {
		asking += len(one.batch)
	}
	l.aloft = slices.Delete(l.aloft, i, i+1)
	end := now()
	if l.expected, l.patience = asking, end; asking >= gatherMany {
		l.expected = (asking + 1) / 2
		wait := min(end-f.took, int64(gatherTime))
		l.patience += wait
		l.alarm.Reset(time.Duration(wait))
	}
	if l.waits && l.due() {
		l.more.Signal()
	}
	l.mu.Unlock()

	l.early.end(f.id)
	if err == nil && len(responses) != len(f.batch) {
		err = fmt.Errorf("%w: the entry could not be applied", ErrUnknown)
	}
	if err == nil && f.quorum {
		if ok, _ := l.applied(index); !ok {
			l.landLater(f, responses, index)
			return
		}
	}
	f.answer(responses, index, err, nil)
}

// landLater answers when a majority of the hosts has applied the entry.
func (l *lead) landLater(f *flight, responses []response, index uint64) {
	l.nudge()
	waiting := l.m.background(func() {
		ctx, cancel := context.WithTimeoutCause(l.ctx, l.m.cfg.OperationTimeout, errTimeout)
		defer cancel()
		err := l.m.book.await(ctx, func() (bool, <-chan struct{}) { return l.applied(index) })
		if err != nil {
			err = fmt.Errorf("%w: not applied on a majority of the hosts yet: %v", ErrUnknown, err) // %v: the cause may be an ErrNotDone
		}
		f.answer(responses, index, nil, err)
	})
	if !waiting {
		f.answer(responses, index, nil, fmt.Errorf("%w: %w", ErrUnknown, errStopping))
	}
}

// answer answers all requests; err is that of all, atQuorum that of those who waited for a majority.
func (f *flight) answer(responses []response, index uint64, err, atQuorum error) {
	for i, p := range f.batch {
		out := outcome{index: index, err: err}
		if err == nil {
			out.resp = responses[i]
		}
		if err == nil && p.level == Quorum {
			out.err = atQuorum
		}
		p.finish(out)
	}
}
