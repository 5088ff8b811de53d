package websocket

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// frame makes one frame with a payload of n bytes.
func frame(op byte, n int, masked bool) []byte {
	b := []byte{op}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if masked {
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, bytes.Repeat([]byte{0x88}, n)...) // looks like the start of a close frame
}

// Whatever the pieces that a stream comes in, the boundaries are where the frames end.
func TestBoundaries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var stream []byte
		ends := map[int]bool{0: true}
		for range 1 + rnd.IntN(8) {
			n := []int{0, 1, 125, 126, 300, 65535, 65536, 70000}[rnd.IntN(8)]
			stream = append(stream, frame(0x82, n, rnd.IntN(2) == 0)...)
			ends[len(stream)] = true
		}
		var tr Tracker
		at := 0
		for at < len(stream) {
			if tr.Boundary() != ends[at] {
				t.Fatalf("at %d: boundary %v", at, tr.Boundary())
			}
			piece := stream[at:min(len(stream), at+1+rnd.IntN(1000))]
			n := tr.Next(piece)
			if n < len(piece) && !ends[at+n] {
				t.Fatalf("stopped at %d, which is no end", at+n)
			}
			for i := at + 1; i < at+n; i++ {
				if ends[i] {
					t.Fatalf("passed the end at %d", i)
				}
			}
			at += n
		}
		if !tr.Boundary() || tr.Closed() {
			t.Fatalf("at the end: boundary %v, closed %v", tr.Boundary(), tr.Closed())
		}
	}
}

func TestCloseFrame(t *testing.T) {
	for _, masked := range []bool{false, true} {
		b := CloseFrame(ServiceRestart, "another node", masked)
		var tr Tracker
		tr.Skip(b)
		if !tr.Boundary() || !tr.Closed() {
			t.Errorf("masked %v: %x", masked, b)
		}
		if !bytes.Contains(b, []byte{0x03, 0xf4, 'a'}) {
			t.Errorf("no 1012 in %x", b)
		}
	}
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte{0x88, 0x02, 3, 0xf4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole, single Tracker
		whole.Skip(b)
		for i := range b {
			single.Skip(b[i : i+1])
		}
		if whole.Boundary() != single.Boundary() || whole.Closed() != single.Closed() {
			t.Fatal("the pieces matter")
		}
	})
}
