package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Bounds of a connection that has not authenticated yet, and of a line: Redis's own.
const (
	maxLine           = 64 << 10 // of an inline command, or of a number
	unauthArgs        = 10
	unauthBulk        = 16 << 10
	firstBuffer       = 4 << 10
	keepBuffer        = 64 << 10 // a larger one is given back once it is empty
	smallestReadSpace = 1 << 10
)

// protocolError ends a connection. Its text is Redis's own.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// errMore says that the buffer ends within a command.
var errMore = errors.New("more input is needed")

// reader takes commands out of a stream. What it returns lies in its buffer, and is valid until fill is called.
type reader struct {
	from     io.Reader
	buf      []byte
	start    int // of what has not been taken yet
	maxArgs  int
	maxBytes int // of one command's arguments together
	args     [][]byte
	part     partial
}

// partial is how far a command has been read that the buffer does not hold all of: so that a long one that comes in many
// pieces is not begun anew with each.
type partial struct {
	at    int // offset from start of what comes next
	left  int // arguments that are still to come; 0: none has begun
	bytes int
	spans [][2]int // the arguments so far, offsets from start
}

// fill reads more from the stream. It moves what is left to the front, so it ends the validity of all arguments.
func (r *reader) fill() error {
	rest := len(r.buf) - r.start
	switch {
	case rest == 0 && cap(r.buf) > keepBuffer:
		r.buf = make([]byte, 0, firstBuffer)
	case r.start > 0:
		copy(r.buf[:rest], r.buf[r.start:])
		r.buf = r.buf[:rest]
	}
	r.start = 0
	if cap(r.buf)-len(r.buf) < smallestReadSpace {
		grown := make([]byte, len(r.buf), max(firstBuffer, 2*cap(r.buf)))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := r.from.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	if n > 0 {
		return nil // an error comes again with the next call
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// next takes the next command, nil for an empty one, which has no answer. It returns errMore, with nothing taken, if fill has to
// be called first.
func (r *reader) next(trusted bool) ([][]byte, error) {
	rest := r.buf[r.start:]
	if len(rest) == 0 {
		return nil, errMore
	}
	if rest[0] != '*' && r.part.left == 0 {
		return r.inline(rest)
	}
	return r.multibulk(rest, trusted)
}

func (r *reader) inline(rest []byte) ([][]byte, error) {
	end := bytes.IndexByte(rest, '\n')
	if end < 0 && len(rest) > maxLine || end > maxLine {
		return nil, protocolError("too big inline request")
	}
	if end < 0 {
		return nil, errMore
	}
	r.start += end + 1
	args, ok := splitInline(bytes.TrimSuffix(rest[:end], []byte{'\r'}))
	if !ok {
		return nil, protocolError("unbalanced quotes in request")
	}
	return args, nil
}

// multibulk reads "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".
func (r *reader) multibulk(rest []byte, trusted bool) ([][]byte, error) {
	p := &r.part
	if p.left == 0 {
		n, at, err := number(rest, 1, "too big mbulk count string", "invalid multibulk length")
		switch {
		case err != nil:
			return nil, err
		case n > int64(r.maxArgs):
			return nil, protocolError("invalid multibulk length")
		case n > unauthArgs && !trusted:
			return nil, protocolError("unauthenticated multibulk length")
		case n <= 0:
			r.start += at
			return nil, nil
		}
		*p = partial{at: at, left: int(n), spans: p.spans[:0]}
	}
	for p.left > 0 {
		if p.at >= len(rest) {
			return nil, errMore
		}
		if c := rest[p.at]; c != '$' {
			return nil, protocolError(fmt.Sprintf("expected '$', got '%c'", printable(c)))
		}
		n, at, err := number(rest, p.at+1, "too big bulk count string", "invalid bulk length")
		switch {
		case err != nil:
			return nil, err
		case n < 0 || n > int64(r.maxBytes-p.bytes):
			return nil, protocolError("invalid bulk length")
		case n > unauthBulk && !trusted:
			return nil, protocolError("unauthenticated bulk length")
		}
		end := at + int(n)
		if end+2 > len(rest) {
			r.reserve(end + 2)
			return nil, errMore
		}
		p.spans = append(p.spans, [2]int{at, end})
		p.bytes += int(n)
		p.at = end + 2 // what stands there instead of \r\n is Redis's to ignore as well
		p.left--
	}
	r.args = r.args[:0]
	for _, s := range p.spans {
		r.args = append(r.args, rest[s[0]:s[1]:s[1]])
	}
	r.start += p.at
	*p = partial{spans: p.spans[:0]}
	return r.args, nil
}

// reserve makes room for a command that needs so many bytes from start on, so that a long argument is not moved again and again.
// It does not trust the announced length: the room at most doubles with what has come.
func (r *reader) reserve(need int) {
	have := len(r.buf) - r.start
	if need = min(need, 2*have+firstBuffer); need <= cap(r.buf)-r.start {
		return
	}
	grown := make([]byte, have, need+smallestReadSpace)
	copy(grown, r.buf[r.start:])
	r.buf, r.start = grown, 0
}

// number reads the digits from at on, up to \r\n. It returns where what follows begins.
func number(rest []byte, at int, tooBig, invalid string) (n int64, next int, err error) {
	end := bytes.IndexByte(rest[at:], '\r')
	switch {
	case end < 0 && len(rest)-at > maxLine:
		return 0, 0, protocolError(tooBig)
	case end < 0, at+end+1 >= len(rest):
		return 0, 0, errMore
	}
	n, ok := parseInt(rest[at : at+end])
	if !ok {
		return 0, 0, protocolError(invalid)
	}
	return n, at + end + 2, nil
}

func printable(c byte) byte {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}

// parseInt is Redis's idea of an integer: no plus, no leading zero, no space.
func parseInt(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	negative := b[0] == '-'
	digits := b
	if negative {
		digits = b[1:]
	}
	if len(digits) == 0 || digits[0] == '0' && len(b) > 1 {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	switch {
	case negative && n <= 1<<63:
		return -int64(n), true
	case !negative && n < 1<<63:
		return int64(n), true
	}
	return 0, false
}
