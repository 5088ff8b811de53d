package upstream

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// maxNames bounds how many names of fields a connection remembers in their other spelling.
const maxNames = 256

// notSent: the application has certainly not looked at the request.
type notSent struct{ error }

func (e *notSent) Unwrap() error { return e.error }

// badAnswer: what came is no answer.
type badAnswer struct{ error }

func (e *badAnswer) Unwrap() error { return e.error }

// errOver: the answer has ended, and with it the use of the request's body.
var errOver = errors.New("the answer has ended")

// call is one request on a connection, and its answer. What is below c is under the connection's mu.
type call struct {
	c    *h2conn
	id   uint32
	wake chan struct{} // something has come; one waits

	window    int64   // bytes of the body that may be sent
	sent      bool    // all of the request is
	status    int     // of the answer; 0 until it comes
	fields    []field // of its head
	infos     int     // informational answers
	come      []byte  // of its body, and not passed on
	spare     []byte  // handed out last, to be filled next
	limit     int     // its window for the answer
	taken     int     // bytes that were received and that the application has not been told of: at most limit
	owed      int     // … of them passed on
	trailers  []field // behind the body
	done      bool    // the answer is whole
	err       error   // it is over without that
	reset     bool    // by the application: it needs not be told
	uploading bool    // somebody is busy with the body: what comes is another's
	overtake  func()  // … and this one's
	overtaken bool
}

type field = hpack.HeaderField

// arrived lets whoever sees to the answer have a look. Under mu.
func (s *call) arrived() {
	if s.uploading && !s.overtaken {
		s.overtaken = true
		go s.overtake() // its end is waited for by whoever is uploading
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end is the end of a call that was not whole; of one that was, it changes nothing. Under mu.
func (s *call) end(err error) {
	if s.err == nil && !s.done {
		s.err = err
	}
	s.c.room.Broadcast()
	s.arrived()
}

// giveUp ends the call from this side.
func (s *call) giveUp(err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.end(err)
}

// open sends the head of a request. body: more follows.
func (c *h2conn) open(r *http.Request, s *call, body bool) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	c.reserved--
	if c.last || c.next > 1<<30 {
		c.last = true
		over := c.unused()
		c.mu.Unlock()
		if over {
			c.close()
		}
		return &notSent{errors.New("the connection to the application has just ended")}
	}
	s.c, s.id, s.window, s.limit, s.sent = c, c.next, c.initial, firstWindow, !body
	c.next += 2
	c.calls[s.id] = s
	c.mu.Unlock()

	c.encode(r, body)
	return c.writeBlock(s.id, !body)
}

// writeBlock sends what was encoded: all of it, as whatever is left out would be missing in what the other side knows of later heads. Under wmu.
func (c *h2conn) writeBlock(id uint32, end bool) error {
	block, first := c.block.Bytes(), true
	for first || len(block) > 0 {
		part := block[:min(len(block), c.maxFrame)]
		block = block[len(part):]
		var err error
		if first {
			err = c.fr.WriteHeaders(wire.HeadersFrameParam{StreamID: id, BlockFragment: part, EndStream: end, EndHeaders: len(block) == 0})
		} else {
			err = c.fr.WriteContinuation(id, len(block) == 0, part)
		}
		if err != nil {
			return err
		}
		first = false
	}
	return nil
}

// encode puts the head of r into block.
func (c *h2conn) encode(r *http.Request, body bool) {
	c.block.Reset()
	c.field(":method", r.Method)
	c.field(":scheme", c.h.scheme)
	if r.Host != "" { // HTTP/1.0 needs none
		c.field(":authority", r.Host)
	}
	c.field(":path", requestURI(r))
	listed := r.Header["Connection"]
	for name, values := range r.Header {
		switch {
		case name == "Te" && hasToken(values, "trailers"):
			c.field("te", "trailers") // which gRPC insists on
		case dropped(name) || name == "Content-Length" || name == "Expect" || name == "Host" || len(listed) > 0 && hasToken(listed, name):
		default:
			if lower := c.lowered(name); lower != "" {
				for _, v := range values {
					c.field(lower, v)
				}
			}
		}
	}
	switch {
	case r.ContentLength > 0:
		c.field("content-length", strconv.FormatInt(r.ContentLength, 10))
	case !body && (r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch):
		c.field("content-length", "0")
	}
	for name := range r.Trailer {
		if token(name) {
			c.field("trailer", name)
		}
	}
}

// field leaves out what cannot stand in a head.
func (c *h2conn) field(name, value string) {
	if oneLine(value) {
		_ = c.enc.WriteField(field{Name: name, Value: value}) // a bytes.Buffer takes everything
	}
}

// lowered is a name as HTTP/2 has it; "" for one that is none.
func (c *h2conn) lowered(name string) string {
	lower, ok := c.lower[name]
	if ok {
		return lower
	}
	if token(name) {
		lower = strings.ToLower(name)
	}
	if len(c.lower) < maxNames {
		c.lower[strings.Clone(name)] = lower
	}
	return lower
}

// send sends some of the body, as the application lets it.
func (s *call) send(p []byte, end bool) error {
	c := s.c
	for {
		c.mu.Lock()
		for len(p) > 0 && s.err == nil && !s.done && (s.window <= 0 || c.window <= 0) {
			c.room.Wait()
		}
		c.mu.Unlock()
		n, err := s.sendPart(p, end)
		if p = p[n:]; err != nil || len(p) == 0 {
			return err
		}
	}
}

// sendPart sends as much as the windows let in, perhaps nothing.
func (s *call) sendPart(p []byte, end bool) (n int, err error) {
	c := s.c
	c.wmu.Lock() // before the windows are looked at: an acknowledgement of narrower ones must not overtake what was sent under the wider
	defer c.wmu.Unlock()
	c.mu.Lock()
	if s.err != nil || s.done {
		c.mu.Unlock()
		return 0, errOver
	}
	n = int(max(min(int64(len(p)), s.window, c.window, int64(c.maxFrame)), 0))
	if n == 0 && len(p) > 0 {
		c.mu.Unlock()
		return 0, nil
	}
	s.window -= int64(n)
	c.window -= int64(n)
	last := end && n == len(p)
	s.sent = last
	c.mu.Unlock()
	return n, c.fr.WriteData(s.id, last, p[:n])
}

// sendEnd sends what follows the body, and that there is no more.
func (s *call) sendEnd(trailer http.Header) error {
	some := false
	for name, values := range trailer {
		some = some || len(values) > 0 && !dropped(name)
	}
	if !some {
		return s.send(nil, true)
	}
	c := s.c
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	over := s.err != nil || s.done
	s.sent = !over
	c.mu.Unlock()
	if over {
		return errOver
	}
	c.block.Reset()
	for name, values := range trailer {
		if lower := c.lowered(name); lower != "" && !dropped(name) {
			for _, v := range values {
				c.field(lower, v)
			}
		}
	}
	return c.writeBlock(s.id, true)
}

// head takes the head of an answer, or what follows its body.
func (c *h2conn) head(f *wire.MetaHeadersFrame) error {
	for i := range f.Fields {
		if name := f.Fields[i].Name; name[0] != ':' {
			f.Fields[i].Name = c.canonical(name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.calls[f.StreamID]
	if s == nil || s.done || s.err != nil {
		return c.unknown(f.StreamID)
	}
	status, err := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case f.Truncated:
		s.end(&badAnswer{errHead})
		return nil
	case s.status != 0 && f.StreamEnded() && f.PseudoValue("status") == "":
		s.trailers, s.done = f.Fields, true
	case s.status != 0 || err != nil || status < 100 || status > 999 || status == http.StatusSwitchingProtocols:
		s.end(&badAnswer{errors.New("a head where none belongs, or without a status")})
		return nil
	case status < 200:
		if s.infos++; s.infos > maxInfos || f.StreamEnded() {
			s.end(&badAnswer{errors.New("too many informational answers, or nothing but one")})
		}
		return nil
	default:
		s.status, s.fields, s.done = status, f.RegularFields(), f.StreamEnded()
	}
	if s.done {
		c.room.Broadcast()
	}
	s.arrived()
	return nil
}

// canonical is a name as net/http has it.
func (c *h2conn) canonical(name string) string {
	long, ok := c.canon[name]
	if !ok {
		long = textproto.CanonicalMIMEHeaderKey(name)
		if len(c.canon) < maxNames {
			c.canon[name] = long
		}
	}
	return long
}

// unknown is a frame for a stream that is over, or, which is an error, for one that never was. Under mu.
func (c *h2conn) unknown(id uint32) error {
	if id >= c.next {
		return errors.New("a frame for a stream that nobody opened")
	}
	return nil
}

// data takes some of an answer's body.
func (c *h2conn) data(f *wire.DataFrame) error {
	n, body := int(f.Length), f.Data()
	c.mu.Lock()
	c.taken += n
	if c.taken > connWindow {
		c.mu.Unlock()
		return errors.New("more than the window lets in")
	}
	s := c.calls[f.StreamID]
	if s == nil || s.done || s.err != nil {
		err := c.unknown(f.StreamID)
		c.owed += n
		c.mu.Unlock()
		return errors.Join(err, c.tell(nil))
	}
	s.taken += n
	if s.taken > s.limit {
		c.mu.Unlock()
		return errors.New("more than the stream's window lets in")
	}
	padding := n - len(body)
	s.owed += padding
	c.owed += padding
	switch {
	case s.status == 0:
		c.owed += len(body)
		s.end(&badAnswer{errors.New("a body without a head")})
	default:
		s.come = append(s.come, body...)
		if s.done = f.StreamEnded(); s.done {
			c.room.Broadcast()
		}
		s.arrived()
	}
	c.mu.Unlock()
	return nil
}

// tell lets the application send on, once it is worth a frame.
func (c *h2conn) tell(s *call) error {
	c.mu.Lock()
	var all, own int
	if c.owed >= connWindow/8 {
		all = c.owed
		c.taken -= all
		c.owed = 0
	}
	if s != nil && s.owed >= s.limit/4 && !s.done {
		own = s.owed
		s.taken -= own
		s.owed = 0
		if more := min(s.limit, streamWindow-s.limit, growWindow-c.grown); more > 0 {
			s.limit += more
			c.grown += more
			own += more
		}
	}
	c.mu.Unlock()
	if all == 0 && own == 0 {
		return nil
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	var err error
	if all > 0 {
		err = c.fr.WriteWindowUpdate(0, uint32(all))
	}
	if own > 0 {
		err = errors.Join(err, c.fr.WriteWindowUpdate(s.id, uint32(own)))
	}
	return err
}

// answer waits for the answer's head.
func (s *call) answer() (status int, fields []field, err error) {
	for {
		s.c.mu.Lock()
		status, fields, err = s.status, s.fields, s.err
		s.c.mu.Unlock()
		if status != 0 || err != nil {
			return status, fields, err
		}
		<-s.wake
	}
}

// whole reports whether nothing more will come.
func (s *call) whole() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.done
}

// read waits for more of the body, which is the caller's until the next read; io.EOF after the last.
func (s *call) read() ([]byte, error) {
	s.c.mu.Lock()
	s.pass()
	owed := s.owed >= s.limit/4 || s.c.owed >= connWindow/8
	s.c.mu.Unlock()
	if owed {
		if err := s.c.tell(s); err != nil {
			return nil, err
		}
	}
	for {
		s.c.mu.Lock()
		p, done, err := s.come, s.done, s.err
		if len(p) > 0 {
			s.come, s.spare = s.spare[:0], p
		}
		s.c.mu.Unlock()
		switch {
		case len(p) > 0:
			return p, nil
		case done:
			return nil, io.EOF
		case err != nil:
			return nil, err
		}
		<-s.wake
	}
}

// pass notes that what was handed out last has been passed on. Under mu.
func (s *call) pass() {
	n := len(s.spare)
	s.owed += n
	s.c.owed += n
	if s.spare = s.spare[:0]; cap(s.spare) > 64<<10 {
		s.spare = nil // a long answer that has become slow keeps little
	}
}

// finish forgets the call. Nobody sends or reads any more.
func (s *call) finish() {
	c := s.c
	c.mu.Lock()
	delete(c.calls, s.id)
	c.grown -= s.limit - firstWindow
	s.pass()
	c.owed += len(s.come)
	tell := (!s.sent || !s.done) && !s.reset && c.err == nil
	over := c.unused()
	owed := c.owed >= connWindow/8
	c.mu.Unlock()
	if tell {
		c.wmu.Lock()
		_ = c.fr.WriteRSTStream(s.id, wire.ErrCodeCancel) // a broken connection shows to run
		c.wmu.Unlock()
	}
	if owed {
		_ = c.tell(nil)
	}
	if over {
		c.close()
	}
}
