package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/boottime"
)

const (
	// flushAfter is how long an answer over HTTP/2 may be gathered before it turns out to be a stream, whose parts are
	// then passed on one by one.
	flushAfter = 500 * time.Microsecond

	// stillness: a gRPC call in which nothing was said for so long when the node steps down has no end of its own. And who sends no more of a
	// request for so long cannot have it delivered again.
	stillness = time.Second
)

func (u *Upstream) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	if upgradeOf(r) != "" {
		fail(w, http.StatusNotImplemented, "the application speaks HTTP/2, which has no upgrades", "no")
		return
	}
	s := &stream{u: u, w: w, r: r, ctl: http.NewResponseController(w), grpc: isGRPC(r.Header)}
	s.call.wake = make(chan struct{}, 1)
	hasBody := r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
	if hasBody {
		_ = s.ctl.EnableFullDuplex()
		s.body = &watchedBody{s: s, ReadCloser: r.Body}
		s.call.uploading, s.call.overtake, s.relayed = true, s.overtake, make(chan struct{})
	}
	err := u.h2.send(r, &s.call, hasBody)
	if s.call.c != nil {
		defer s.call.finish()
	}
	if err != nil {
		s.noAnswer(err)
		return
	}
	defer context.AfterFunc(r.Context(), func() { s.call.giveUp(context.Cause(r.Context())) })()
	if err = s.exchange(); err != nil {
		s.u.log.Debug("answer broken off", "error", err)
		panic(http.ErrAbortHandler)
	}
}

// exchange sends the body and passes the answer on. An error: the answer must not look whole.
func (s *stream) exchange() error {
	if s.body != nil {
		if err := s.upload(); err != nil {
			s.call.giveUp(err) // errOver says nothing new
		}
		if s.call.uploaded() {
			<-s.relayed
			if s.broken != nil {
				s.noAnswer(s.broken)
			}
			return s.cut
		}
	}
	status, fields, err := s.call.answer()
	if err != nil && status == 0 {
		s.noAnswer(err)
		return nil
	}
	return s.relay(status, fields)
}

// uploaded is the end of the body; true if somebody else sees to the answer already.
func (s *call) uploaded() (overtaken bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.uploading = false
	return s.overtaken
}

// overtake passes on an answer that came while the body is still being sent, and ends that.
func (s *stream) overtake() {
	defer close(s.relayed)
	status, fields, err := s.call.answer()
	var none *notSent
	if status != 0 {
		s.cut = s.relay(status, fields)
	} else if s.broken = err; errors.As(err, &none) && s.body.settle() {
		return // it can be delivered again, with what has not been read yet
	}
	s.body.finish()
}

// upload sends the body. It is short as a rule, and has come: so nobody else is asked to do it.
func (s *stream) upload() error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	left := s.r.ContentLength
	for {
		n, err := s.body.Read(*buf)
		left -= int64(n)
		last := left == 0 && len(s.r.Trailer) == 0
		if n > 0 {
			if werr := s.call.send((*buf)[:n], last); werr != nil || last {
				return werr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return s.call.sendEnd(s.r.Trailer)
		case err != nil:
			return err
		}
	}
}

func isGRPC(h http.Header) bool {
	ct := h["Content-Type"]
	return len(ct) > 0 && strings.HasPrefix(ct[0], "application/grpc")
}

// A stream is one request over HTTP/2 and its answer.
type stream struct {
	u    *Upstream
	w    http.ResponseWriter
	r    *http.Request
	ctl  *http.ResponseController
	grpc bool
	body *watchedBody // nil: none
	call call
	last atomic.Int64 // when anything was said, a boottime.Instant; only kept once the answer is a stream

	relayed chan struct{} // closed when somebody else has passed the answer on, with a body
	broken  error         // what came instead of it
	cut     error         // it was not whole

	mu    sync.Mutex // over w, once the answer has begun
	gone  bool       // w must not be touched any more
	live  bool       // a stream: nothing is gathered
	watch sync.WaitGroup
	over  chan struct{} // closed at the end; nil unless somebody watches
}

// noAnswer: it is certain that nothing was delivered, or it is not.
func (s *stream) noAnswer(err error) {
	var none *notSent
	var bad *badAnswer
	switch {
	case errors.As(err, &bad):
		s.u.malformed(s.w, s.r, err)
	case errors.As(err, &none):
		s.u.unreachable(s.w, s.r, err)
	case s.body != nil && s.body.failed() != nil && s.r.Context().Err() == nil:
		badBody(s.w, s.body.failed())
	default:
		s.u.broke(s.w, s.r, err)
	}
}

func (s *stream) relay(status int, fields []field) error {
	h := s.w.Header()
	length, declared, err := s.head(h, fields)
	if err != nil {
		s.u.malformed(s.w, s.r, err)
		return nil
	}
	if s.r.Method == http.MethodHead || status == http.StatusNotModified {
		length = -1
	}
	s.w.WriteHeader(status)
	var timer *time.Timer
	if !s.call.whole() {
		timer = time.AfterFunc(flushAfter, s.flush)
	}
	err = s.copy(length)
	if timer != nil {
		timer.Stop()
	}
	s.end()
	switch {
	case err == nil:
		trail(h, s.call.trailer(), declared)
	case s.grpc:
		// A status says more than a broken stream: the client may call again, elsewhere.
		h[http.TrailerPrefix+"Grpc-Status"] = []string{"14"} // UNAVAILABLE
		h[http.TrailerPrefix+"Grpc-Message"] = []string{s.farewell(err)}
		return nil
	}
	return err
}

// head writes the answer's fields down. length is -1 where it does not say.
func (s *stream) head(h http.Header, fields []field) (length int64, declared map[string]bool, err error) {
	length = -1
	values := make([]string, len(fields))
	var announced http.Header
	typed := false
	for i, f := range fields {
		switch {
		case f.Name == "Content-Length":
			n, err := strconv.ParseUint(f.Value, 10, 63)
			if err != nil || length >= 0 && int64(n) != length {
				return 0, nil, fmt.Errorf("a Content-Length of %.40q", f.Value)
			}
			length = int64(n)
		case f.Name == "Trailer":
			for name := range strings.SplitSeq(f.Value, ",") {
				if name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)); token(name) && !dropped(name) {
					if announced == nil {
						announced = http.Header{}
					}
					announced[name] = nil
				}
			}
			continue
		case f.Name == "Content-Type":
			typed = true
		}
		if dropped(f.Name) || strings.HasPrefix(f.Name, "X-Locum-") {
			continue
		}
		values[i] = f.Value
		own := values[i : i+1 : i+1]
		for _, before := range fields[:i] {
			if before.Name == f.Name { // once more: the field has several values
				own = append(h[f.Name], f.Value)
				break
			}
		}
		h[f.Name] = own
	}
	if !typed {
		h["Content-Type"] = nil // it is the application's to say: nobody must guess
	}
	return length, announce(h, announced), nil
}

// trailer is what came behind the body.
func (s *call) trailer() http.Header {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if len(s.trailers) == 0 {
		return nil
	}
	h := make(http.Header, len(s.trailers))
	for _, f := range s.trailers {
		if !dropped(f.Name) && !strings.HasPrefix(f.Name, "X-Locum-") {
			h[f.Name] = append(h[f.Name], f.Value)
		}
	}
	return h
}

func (s *stream) farewell(err error) string {
	if cause := context.Cause(s.r.Context()); cause != nil {
		return "this node is not active any more"
	}
	return fmt.Sprintf("the application broke off: %.100q", err.Error())
}

// copy passes the body on, of so many bytes unless length is negative.
func (s *stream) copy(length int64) error {
	left := length
	for {
		p, err := s.call.read()
		if len(p) > 0 {
			if left -= int64(len(p)); length >= 0 && left < 0 {
				return errors.New("a body that is longer than its Content-Length")
			}
			if werr := s.write(p); werr != nil {
				return clientError(werr)
			}
		}
		switch {
		case errors.Is(err, io.EOF) && length >= 0 && left > 0:
			return io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (s *stream) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.Write(p)
	if err == nil && s.live {
		s.last.Store(int64(boottime.Now()))
		return s.ctl.Flush()
	}
	return err
}

// flush runs when the answer has not ended soon: it is a stream.
func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.live = true
	s.last.Store(int64(boottime.Now()))
	_ = s.ctl.Flush() // a broken connection shows at the next write
	if draining := forward.Draining(s.r.Context()); s.grpc && draining != nil {
		s.over = make(chan struct{})
		s.watch.Go(func() { s.awaitDrain(draining) })
	}
}

// awaitDrain ends a call in which nothing is said when the node steps down: a subscription, which has no end of its own.
func (s *stream) awaitDrain(draining <-chan struct{}) {
	select {
	case <-draining:
	case <-s.over:
		return
	}
	tick := time.NewTicker(stillness / 20)
	defer tick.Stop()
	for boottime.Since(boottime.Instant(s.last.Load())) < stillness {
		select {
		case <-tick.C:
		case <-s.over:
			return
		}
	}
	forward.Endless(s.r.Context())
}

// end keeps everybody else from the answer.
func (s *stream) end() {
	s.mu.Lock()
	s.gone = true
	over := s.over
	s.mu.Unlock()
	if over != nil {
		close(over)
	}
	s.watch.Wait()
}

// watchedBody notes that the client says something, and is not read after the request has been answered.
type watchedBody struct {
	io.ReadCloser
	s       *stream
	reading sync.Mutex
	err     atomic.Pointer[error]
	closed  atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.s.last.Store(int64(boottime.Now()))
	}
	if err != nil && !errors.Is(err, io.EOF) && !b.closed.Load() {
		b.err.Store(&err)
	}
	return n, err
}

// failed is what the client did wrong while it sent the body, nil while nothing.
func (b *watchedBody) failed() error {
	if err := b.err.Load(); err != nil {
		return *err
	}
	return nil
}

// settle lets a read that is under way end by itself, if it does soon, and reports whether it has: whoever breaks it off breaks the body, too.
func (b *watchedBody) settle() bool {
	b.closed.Store(true)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !b.reading.TryLock(); <-tick.C {
		if time.Since(began) > stillness {
			return false
		}
	}
	b.reading.Unlock()
	return true
}

// finish waits until nobody reads: the transport may still be at it.
func (b *watchedBody) finish() {
	b.closed.Store(true)
	if !b.reading.TryLock() {
		_ = b.s.ctl.SetReadDeadline(time.Unix(1, 0))
		b.reading.Lock()
	}
	b.reading.Unlock()
}
