package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The wire: each side sends the magic, then frames. A frame is a header of 12 bytes and a payload:
//
//	length of the payload  3 B, big endian
//	type                   1 B
//	flags                  1 B
//	stream                 7 B, big endian; 0 means the connection itself
//
// Streams are numbered by the standby, rising from 1, and never used again on a connection.
const (
	magic          = "LOCUMFW1"
	frameHeaderLen = 12
	maxStreamID    = 1<<56 - 1

	// maxData is the longest payload of a DATA frame that is sent; maxPlain the longest payload of
	// any frame but a head that is accepted; maxHead the longest head.
	maxData  = 32 << 10
	maxPlain = 64 << 10
	maxHead  = 1<<20 + 256<<10
	// maxFields is how many fields and values a head may have: decoded, each takes many times its bytes.
	maxFields = 10_000
)

type frameType uint8

const (
	frameHello    frameType = 1  // versions, limits, identity; the first frame of each side
	frameEcho     frameType = 2  // liveness, round trip, clock skew, node info
	frameState    frameType = 3  // active → standby: whether it leads, in which term
	frameGoaway   frameType = 4  // active → standby: last accepted stream, reason
	frameRequest  frameType = 5  // standby → active: opens a stream
	frameResponse frameType = 6  // active → standby: the answer's head
	frameInfo     frameType = 7  // active → standby: an informational (1xx) head
	frameData     frameType = 8  // both: body bytes
	frameTrailers frameType = 9  // both: trailers; always the last frame of its direction
	frameWindow   frameType = 10 // both: how many more body bytes may be sent
	frameStop     frameType = 11 // both: no more body bytes are wanted
	frameReset    frameType = 12 // both: the stream is over, both ways
)

type frameFlags uint8

const (
	flagEnd      frameFlags = 1 << 0 // last frame of this direction (REQUEST, RESPONSE, DATA, TRAILERS)
	flagFlush    frameFlags = 1 << 1 // pass on to the client at once (RESPONSE, DATA)
	flagHijack   frameFlags = 1 << 2 // RESPONSE without a head: raw bytes both ways from here on
	flagContinue frameFlags = 1 << 3 // WINDOW: the handler wants the body (Expect: 100-continue)
	flagAck      frameFlags = 1 << 0 // ECHO: the answer to one
	flagSync     frameFlags = 1 << 1 // ECHO: only to learn that all before it was read
)

// resetCode says why a stream was ended before its end.
type resetCode uint8

const (
	resetCancel       resetCode = 1 // the client is gone, or the answer is not wanted any more
	resetNotProcessed resetCode = 2 // certain: no handler has seen the request
	resetDeposed      resetCode = 3 // a handler ran, but its answer cannot be trusted (P4)
	resetAborted      resetCode = 4 // the handler broke off its answer
	resetBusy         resetCode = 5 // not processed: no room for the stream
	resetDeclined     resetCode = 6 // the handler says that it did not carry the request out
	resetBroken       resetCode = 7 // delivered to an application that broke off without an answer
)

func (c resetCode) String() string {
	switch c {
	case resetCancel:
		return "cancelled"
	case resetNotProcessed:
		return "not processed"
	case resetDeposed:
		return "deposed"
	case resetAborted:
		return "aborted"
	case resetBusy:
		return "busy"
	case resetDeclined:
		return "declined"
	case resetBroken:
		return "the application broke off"
	default:
		return fmt.Sprintf("code %d", uint8(c))
	}
}

// errProtocol is what a peer that does not keep to the framing gets: its connection is closed.
var errProtocol = errors.New("forward: protocol error")

type frameHeader struct {
	length int
	typ    frameType
	flags  frameFlags
	stream uint64
}

func appendFrameHeader(b []byte, n int, t frameType, f frameFlags, stream uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(n)<<8|uint32(t))
	return binary.BigEndian.AppendUint64(b, uint64(f)<<56|stream&maxStreamID)
}

func appendFrame(b []byte, t frameType, f frameFlags, stream uint64, payload []byte) []byte {
	return append(appendFrameHeader(b, len(payload), t, f, stream), payload...)
}

// patchFrameHeader writes a header over the 12 bytes at the start of b, for a frame whose payload was
// encoded before its length or stream were known.
func patchFrameHeader(b []byte, n int, t frameType, f frameFlags, stream uint64) {
	binary.BigEndian.PutUint32(b, uint32(n)<<8|uint32(t))
	binary.BigEndian.PutUint64(b[4:], uint64(f)<<56|stream&maxStreamID)
}

// parseFrameHeader checks the length against what the type may have, so that no peer can make the
// other side allocate more than maxHead.
func parseFrameHeader(b []byte) (frameHeader, error) {
	w := binary.BigEndian.Uint32(b)
	v := binary.BigEndian.Uint64(b[4:])
	h := frameHeader{
		length: int(w >> 8),
		typ:    frameType(w & 0xff),
		flags:  frameFlags(v >> 56),
		stream: v & maxStreamID,
	}
	limit := maxPlain
	switch h.typ {
	case frameRequest, frameResponse, frameInfo, frameTrailers:
		limit = maxHead
	}
	if h.length > limit {
		return h, fmt.Errorf("%w: frame of type %d with %d bytes", errProtocol, h.typ, h.length)
	}
	connLevel := h.typ <= frameGoaway
	if h.typ <= frameReset && connLevel != (h.stream == 0) {
		return h, fmt.Errorf("%w: frame of type %d on stream %d", errProtocol, h.typ, h.stream)
	}
	return h, nil
}
