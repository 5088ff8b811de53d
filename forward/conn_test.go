package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestFrameHeader(t *testing.T) {
	for range 1000 {
		want := frameHeader{
			length: rand.IntN(maxPlain), typ: frameData, flags: frameFlags(rand.Uint32()), stream: 1 + rand.Uint64N(maxStreamID),
		}
		b := appendFrameHeader(nil, want.length, want.typ, want.flags, want.stream)
		got, err := parseFrameHeader(b)
		if err != nil || got != want || len(b) != frameHeaderLen {
			t.Fatalf("%+v %+v %v", got, want, err)
		}
	}
	for _, b := range [][]byte{
		appendFrameHeader(nil, maxPlain+1, frameData, 0, 1),
		appendFrameHeader(nil, maxHead+1, frameRequest, 0, 1),
		appendFrameHeader(nil, 0, frameData, 0, 0),
		appendFrameHeader(nil, 0, frameEcho, 0, 1),
	} {
		if _, err := parseFrameHeader(b); !errors.Is(err, errProtocol) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func TestHeadersSurviveTheCodec(t *testing.T) {
	h := http.Header{
		"Accept": {"a"}, "X-Own": {"", "b", "c"}, "Date": nil, "": {"dropped by decoding"}, "X-Long": {strings.Repeat("l", 70_000)},
	}
	delete(h, "")
	for i := range 40 {
		h[fmt.Sprint("X-", i)] = []string{fmt.Sprint(i)}
	}
	got := http.Header{}
	b, ok := appendHeader(nil, h, nil)
	d := decoder{s: string(b)}
	d.header(got)
	if !ok || d.bad || !reflect.DeepEqual(got, h) {
		t.Error(d.bad, got)
	}
	// A field that comes twice keeps its order, and appending to one value overwrites no other.
	b = appendField1(appendField1(appendField1(nil, "A", "1"), "B", "2"), "A", "3")
	got = http.Header{}
	d = decoder{s: string(b)}
	d.header(got)
	got["A"] = append(got["A"], "4")
	if fmt.Sprint(got["A"], got["B"]) != "[1 3 4] [2]" {
		t.Error(got)
	}
}

func TestVersions(t *testing.T) {
	h := hello{minVersion: 1, maxVersion: 9, window: 1, streams: 1, nodeID: "x"}
	if _, err := decodeHello(string(append(h.append(nil), "what a later version adds"...))); err != nil {
		t.Error(err)
	}
	h.minVersion = 2
	if _, err := decodeHello(string(h.append(nil))); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

// A peer that is not the one that was meant is not talked to.
func TestWrongPeer(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	n.a.Lead(1, newLease(), http.HandlerFunc(echoHandler))
	a, b := tcpPair(t)
	c := newConn(a, hello{minVersion: 1, maxVersion: 1, streams: 1, nodeID: "somebody"}, 1<<20)
	go func() { _ = c.handshake(t.Context()) }()
	if err := n.a.ServeConn(t.Context(), b, "id-s", "s"); !errors.Is(err, ErrPeer) {
		t.Error(err)
	}
	a.Close()
	if _, err := n.s.followOnce(newFollower(&Target{NodeID: "id-other", Dial: n.a.dial(n.s)})); !errors.Is(err, ErrPeer) {
		t.Error(err)
	}
}

// What breaks the framing closes the connection, and neither side.
func TestProtocolErrors(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	n.a.Lead(1, newLease(), http.HandlerFunc(echoHandler))
	request, _ := appendRequest(nil, httptest.NewRequest("GET", "/", nil), &requestHead{uri: "/", window: 1000})
	hi := hello{minVersion: 1, maxVersion: 1, window: 1000, streams: 1, nodeID: "id-s"}.append(nil)
	preface := append([]byte(magic), appendFrame(nil, frameHello, 0, 0, hi)...)
	for name, b := range map[string][]byte{
		"magic":               []byte("GET / HTTP/1.1\r\nHost: xxxxxxxxxxx\r\n\r\n"),
		"no hello":            append([]byte(magic), appendFrame(nil, frameEcho, 0, 0, make([]byte, 8))...),
		"bad hello":           append([]byte(magic), appendFrame(nil, frameHello, 0, 0, []byte{0xff})...),
		"second hello":        append(preface, appendFrame(nil, frameHello, 0, 0, hi)...),
		"bad request":         append(preface, appendFrame(nil, frameRequest, flagEnd, 1, []byte("nonsense"))...),
		"stream number":       append(preface, appendFrame(appendFrame(nil, frameRequest, 0, 5, request), frameRequest, 0, 5, request)...),
		"beyond the window":   append(preface, appendFrame(appendFrame(nil, frameRequest, 0, 1, request), frameData, 0, 1, make([]byte, bodyWindow+1))...),
		"state":               append(preface, appendFrame(nil, frameState, 0, 0, []byte{1, 1})...),
		"goaway":              append(preface, appendFrame(nil, frameGoaway, 0, 0, []byte{1, 1})...),
		"echo":                append(preface, appendFrame(nil, frameEcho, 0, 0, nil)...),
		"window":              append(preface, appendFrame(appendFrame(nil, frameRequest, 0, 1, request), frameWindow, 0, 1, []byte{1})...),
		"window too large":    append(preface, appendFrame(appendFrame(nil, frameRequest, 0, 1, request), frameWindow, 0, 1, []byte{0xff, 0, 0, 0})...),
		"too long":            append(preface, appendFrameHeader(nil, 1<<23, frameRequest, 0, 1)...),
		"answer from standby": append(preface, appendFrame(appendFrame(nil, frameRequest, flagEnd, 1, request), frameTrailers, 0, 1, nil)...),
	} {
		t.Run(name, func(t *testing.T) {
			a, b2 := tcpPair(t)
			done := make(chan error, 1)
			go func() { done <- n.a.ServeConn(context.Background(), b2, "id-s", "s") }()
			go func() { _, _ = io.Copy(io.Discard, a) }()
			if _, err := a.Write(b); err != nil {
				t.Log(err)
			}
			if name == "answer from standby" {
				a.Close() // harmless or an error, depending on whether the handler is done
				<-done
				return
			}
			if err := <-done; !errors.Is(err, errProtocol) {
				t.Error(err)
			}
			a.Close()
		})
	}
	// What a later version may send is ignored.
	a, b := tcpPair(t)
	done := make(chan error, 1)
	go func() { done <- n.a.ServeConn(context.Background(), b, "id-s", "s") }()
	_, _ = a.Write(append(preface, appendFrame(appendFrame(nil, 77, 0, 0, []byte("?")), 78, 3, 9, []byte("?"))...))
	_, _ = a.Write(appendFrame(nil, frameEcho, flagSync, 0, nil))
	buf := make([]byte, 4096)
	var got []byte
	for !bytes.Contains(got, appendFrame(nil, frameEcho, flagSync|flagAck, 0, nil)) {
		k, err := a.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:k]...)
	}
	a.Close()
	<-done
}

func FuzzDecoders(f *testing.F) {
	r := httptest.NewRequest("POST", "/x?y", strings.NewReader("b"))
	r.Trailer = http.Header{"X-T": nil}
	request, _ := appendRequest(nil, r, &requestHead{uri: "/x?y", bits: headTrailer, window: 5})
	f.Add(string(request))
	f.Add(string(hello{minVersion: 1, maxVersion: 1, window: 1, streams: 1, nodeID: "n"}.append(nil)))
	f.Add(string(appendField1([]byte{0xc8, 1}, "Content-Type", "x")))
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := decodeRequest(s); err == nil {
			if _, err := parseURI(h.method, h.uri); err == nil {
				h.tls.state(true)
			}
		}
		if code, h, err := decodeResponse(s); err == nil {
			b, _ := appendHeader(nil, h, nil)
			again := http.Header{}
			d := decoder{s: string(b)}
			d.header(again)
			if d.bad || code < 100 || !reflect.DeepEqual(h, again) {
				t.Errorf("%q: %v %v", s, h, again)
			}
		}
		_, _ = decodeTrailers(s)
		_, _ = decodeHello(s)
		if len(s) >= frameHeaderLen {
			if h, err := parseFrameHeader([]byte(s)); err == nil && h.length > maxHead {
				t.Error(h)
			}
		}
	})
}

// Whatever a peer sends, the active side answers or closes: it neither panics nor hangs.
func FuzzServeConn(f *testing.F) {
	request, _ := appendRequest(nil, httptest.NewRequest("POST", "/", nil), &requestHead{uri: "/", window: 1000})
	frames := appendFrame(nil, frameRequest, 0, 1, request)
	frames = appendFrame(frames, frameData, 0, 1, []byte("abc"))
	frames = appendFrame(frames, frameWindow, flagContinue, 1, []byte{0, 0, 1, 0})
	frames = appendFrame(frames, frameTrailers, flagEnd, 1, appendField1(nil, "X-T", "v"))
	frames = appendFrame(frames, frameReset, 0, 1, []byte{1})
	frames = appendFrame(frames, frameStop, 0, 1, nil)
	f.Add(frames)
	fuzzPeer(f, func(r *Router, nc net.Conn) {
		r.Lead(1, newLease(), http.HandlerFunc(echoHandler))
		_ = r.ServeConn(context.Background(), nc, "id-peer", "peer")
	})
}

// And so does the standby's side.
func FuzzSession(f *testing.F) {
	frames := appendFrame(nil, frameState, 0, 0, appendState(nil, true, 1))
	frames = appendFrame(frames, frameInfo, 0, 1, appendField1([]byte{103}, "Link", "x"))
	frames = appendFrame(frames, frameResponse, 0, 1, appendField1([]byte{0xc8, 1}, "Content-Type", "x"))
	frames = appendFrame(frames, frameData, flagFlush, 1, []byte("abc"))
	frames = appendFrame(frames, frameData, flagEnd, 1, []byte("abc"))
	frames = appendFrame(frames, frameGoaway, 0, 0, appendGoaway(nil, 1, "hold"))
	f.Add(frames)
	fuzzPeer(f, func(r *Router, nc net.Conn) {
		dialled := false
		ctx, cancel := context.WithCancel(context.Background())
		r.Follow(Target{Term: 1, NodeID: "id-peer", Dial: func(context.Context) (net.Conn, error) {
			if dialled {
				cancel()
				return nil, net.ErrClosed
			}
			dialled = true
			return nc, nil
		}})
		var asked []chan struct{}
		for range 2 {
			done := make(chan struct{})
			asked = append(asked, done)
			go func() {
				defer close(done)
				defer func() { _ = recover() }() // a broken answer
				r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader("x")).WithContext(ctx))
			}()
		}
		for _, done := range asked {
			<-done
		}
		cancel()
	})
}

func fuzzPeer(f *testing.F, run func(*Router, net.Conn)) {
	hi := hello{minVersion: 1, maxVersion: 1, window: 1000, streams: 10, nodeID: "id-peer"}.append(nil)
	preface := append([]byte(magic), appendFrame(nil, frameHello, 0, 0, hi)...)
	f.Fuzz(func(_ *testing.T, frames []byte) {
		r, err := NewRouter(Config{Node: "n", NodeID: "id-n", HoldTimeout: 20 * time.Millisecond})
		if err != nil {
			panic(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = r.Run(ctx)
		}()
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, a) }()
		go func() {
			_, _ = a.Write(preface)
			_, _ = a.Write(frames)
			a.Close()
		}()
		run(r, b)
		cancel()
		<-ended
		a.Close()
		b.Close()
	})
}

// Of two connections of one standby the later made one stays, in whatever order they arrive; a restarted
// standby's always does.
func TestLaterConnectionReplacesTheEarlier(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	connect := func(process string, number uint64) chan error {
		a, b := tcpPair(t)
		t.Cleanup(func() { a.Close() })
		c := newConn(a, hello{
			minVersion: 1, maxVersion: 1, streams: 1, nodeID: "id-s", process: process, number: number,
		}, 1<<20)
		shaken := make(chan error, 1)
		go func() { shaken <- c.handshake(t.Context()) }()
		done := make(chan error, 1)
		go func() { done <- n.a.ServeConn(context.Background(), b, "id-s", "s") }()
		if err := <-shaken; err != nil {
			t.Fatal(err)
		}
		return done
	}
	second := connect("p", 2)
	eventually(t, func() bool { return len(n.a.Peers()) == 1 })
	if err := <-connect("p", 1); !errors.Is(err, ErrSuperseded) {
		t.Error(err)
	}
	third := connect("p", 3)
	if err := <-second; !errors.Is(err, ErrSuperseded) {
		t.Error(err)
	}
	restarted := connect("q", 1)
	if err := <-third; !errors.Is(err, ErrSuperseded) {
		t.Error(err)
	}
	n.a.stop()
	if err := <-restarted; !errors.Is(err, ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
