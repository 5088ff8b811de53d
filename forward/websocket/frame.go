package websocket

import "encoding/binary"

// ServiceRestart is the status code 1012: the service restarts, and the client may connect anew (IANA's registry of
// WebSocket close codes).
const ServiceRestart = 1012

// maxHeader is 2 bytes, 8 of a length, 4 of a mask.
const maxHeader = 14

const opClose = 8

// A Tracker follows the frames in one direction of a connection. The zero Tracker stands before the first frame. It
// is not safe for concurrent use.
type Tracker struct {
	head    [maxHeader]byte
	n       int    // bytes of the header that have come
	payload uint64 // bytes of the payload that have not come yet
	closed  bool   // a close frame has begun
}

// Next returns how many bytes at the start of p belong to the frame that is under way, or to the next one if none is:
// at most len(p). What remains begins at a boundary.
func (t *Tracker) Next(p []byte) int {
	i := 0
	for i < len(p) {
		if t.payload > 0 {
			n := int(min(t.payload, uint64(len(p)-i)))
			t.payload -= uint64(n)
			i += n
			if t.payload == 0 {
				return i
			}
			continue
		}
		t.head[t.n] = p[i]
		t.n++
		i++
		if t.n < 2 || t.n < t.headerLen() {
			continue
		}
		t.payload = t.length()
		t.closed = t.closed || t.head[0]&0x0f == opClose
		t.n = 0
		if t.payload == 0 {
			return i
		}
	}
	return i
}

// Skip follows all of p.
func (t *Tracker) Skip(p []byte) {
	for len(p) > 0 {
		p = p[t.Next(p):]
	}
}

// Boundary reports whether no frame is under way: another frame may stand here.
func (t *Tracker) Boundary() bool { return t.n == 0 && t.payload == 0 }

// Closed reports whether a close frame has begun: none may follow it.
func (t *Tracker) Closed() bool { return t.closed }

func (t *Tracker) headerLen() int {
	n := 2
	switch t.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if t.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

func (t *Tracker) length() uint64 {
	switch n := t.head[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(t.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(t.head[2:]) &^ (1 << 63) // the highest bit is always 0
	default:
		return uint64(n)
	}
}

// CloseFrame is a close frame with the status code and a reason of at most 123 bytes. What a client sends is masked; the mask is
// zero, which hides nothing, and need not: the reason is no attacker's.
func CloseFrame(code uint16, reason string, masked bool) []byte {
	n := 2 + len(reason)
	b := []byte{0x80 | opClose, byte(n)}
	if masked {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	b = binary.BigEndian.AppendUint16(b, code)
	return append(b, reason...)
}
