package upstream_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/locum-ha/locum/forward/upstream"
)

// frames is an application's side of a connection over HTTP/2, frame by frame.
type frames struct {
	*wire.Framer
	nc net.Conn
}

// frameScript is an application that is a function on each connection, after the greeting.
func frameScript(t *testing.T, settings []wire.Setting, f func(n int, fr frames)) (url string) {
	return strings.Replace(script(t, func(n int, nc net.Conn, br *bufio.Reader) {
		preface := make([]byte, len(wire.ClientPreface))
		if _, err := io.ReadFull(br, preface); err != nil {
			return
		}
		fr := wire.NewFramer(nc, br)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		if fr.WriteSettings(settings...) == nil {
			f(n, frames{fr, nc})
		}
	}), "http", "h2c", 1)
}

// request reads until a request is there with its body, as far as it may be sent.
func (f frames) request() (id uint32, method string, body int) {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return 0, "", 0
		}
		switch frame := frame.(type) {
		case *wire.MetaHeadersFrame:
			id, method = frame.StreamID, frame.PseudoValue("method")
		case *wire.DataFrame:
			body += len(frame.Data())
		default:
			continue
		}
		if frame.Header().Flags.Has(wire.FlagDataEndStream) {
			return id, method, body
		}
	}
}

// head writes the head of an answer.
func (f frames) head(id uint32, end bool, fields ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	first := true
	for block := b.Bytes(); first || len(block) > 0; first = false {
		part := block[:min(len(block), 16000)]
		block = block[len(part):]
		if first {
			_ = f.WriteHeaders(wire.HeadersFrameParam{StreamID: id, BlockFragment: part, EndHeaders: len(block) == 0, EndStream: end})
		} else {
			_ = f.WriteContinuation(id, len(block) == 0, part)
		}
	}
}

func (f frames) rest() {
	for {
		if _, err := f.ReadFrame(); err != nil {
			return
		}
	}
}

// P6: a request that the application says it did not look at is delivered again, whatever its method; RFC 9113 §8.7.
func TestRefusedRequestsComeAgain(t *testing.T) {
	for name, refuse := range map[string]func(fr frames, id uint32){
		"REFUSED_STREAM": func(fr frames, id uint32) { _ = fr.WriteRSTStream(id, wire.ErrCodeRefusedStream) },
		"GOAWAY":         func(fr frames, id uint32) { _ = fr.WriteGoAway(id-1, wire.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			url := frameScript(t, nil, func(_ int, fr frames) {
				for {
					id, _, body := fr.request()
					switch {
					case id == 0:
						return
					case asked.Add(1)%2 == 1:
						refuse(fr, id)
					default:
						fr.head(id, false, ":status", "200")
						_ = fr.WriteData(id, true, fmt.Append(nil, body))
					}
				}
			})
			p := protect(t, upstream.Config{URL: url})
			p.each(func(t *testing.T, addr string) {
				for _, body := range []string{"hello", ""} {
					if resp, got := do(t, client(t, http1), "POST", "http://"+addr+"/", body); resp.StatusCode != 200 || got != fmt.Sprint(len(body)) {
						t.Errorf("%d %q", resp.StatusCode, got)
					}
				}
			})
		})
	}
}

// P6: over HTTP/2 as over HTTP/1.1, a safe request that was cut off is delivered again, any other is answered "unknown".
func TestApplicationBreaksOffHTTP2(t *testing.T) {
	for name, end := range map[string]func(fr frames, id uint32){
		"RST_STREAM":        func(fr frames, id uint32) { _ = fr.WriteRSTStream(id, wire.ErrCodeInternal) },
		"connection closed": func(fr frames, _ uint32) { _ = fr.nc.Close() },
		"GOAWAY behind it": func(fr frames, id uint32) {
			_ = fr.WriteGoAway(id, wire.ErrCodeNo, nil)
			_ = fr.nc.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var gets, posts atomic.Int32
			url := frameScript(t, nil, func(_ int, fr frames) {
				for {
					id, method, _ := fr.request()
					n := &gets
					if method == "POST" {
						n = &posts
					}
					switch {
					case id == 0:
						return
					case n.Add(1) == 1:
						end(fr, id)
					default:
						fr.head(id, true, ":status", "204")
					}
				}
			})
			p := protect(t, upstream.Config{URL: url})
			p.each(func(t *testing.T, addr string) {
				gets.Store(0)
				posts.Store(0)
				if resp, body := do(t, client(t, http1), "GET", "http://"+addr+"/", ""); resp.StatusCode != 204 || gets.Load() != 2 {
					t.Errorf("GET: %d %q after %d deliveries", resp.StatusCode, body, gets.Load())
				}
				resp, body := do(t, client(t, http1), "POST", "http://"+addr+"/", "x")
				if resp.StatusCode != 503 || !strings.Contains(body, `"processed":"unknown"`) || posts.Load() != 1 {
					t.Errorf("POST: %d %q after %d deliveries", resp.StatusCode, body, posts.Load())
				}
			})
		})
	}
}

// What is no answer is said to be none; the connection's other requests go on where only the stream is at fault.
func TestHTTP2AnswersThatAreNone(t *testing.T) {
	for name, answer := range map[string]func(fr frames, id uint32){
		"no status":             func(fr frames, id uint32) { fr.head(id, true, "x", "y") },
		"a status that is none": func(fr frames, id uint32) { fr.head(id, true, ":status", "ok") },
		"an upper-case name":    func(fr frames, id uint32) { fr.head(id, true, ":status", "200", "Upper", "y") },
		"two lengths": func(fr frames, id uint32) {
			fr.head(id, false, ":status", "200", "content-length", "1", "content-length", "2")
		},
		"a body without a head": func(fr frames, id uint32) { _ = fr.WriteData(id, true, []byte("x")) },
		"a long head":           func(fr frames, id uint32) { fr.head(id, true, ":status", "200", "x", strings.Repeat("x", 300<<10)) },
		"only informs": func(fr frames, id uint32) {
			for range 20 {
				fr.head(id, false, ":status", "103")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := frameScript(t, nil, func(_ int, fr frames) {
				for {
					id, _, _ := fr.request()
					if id == 0 {
						return
					}
					answer(fr, id)
				}
			})
			p := protect(t, upstream.Config{URL: url})
			resp, body := do(t, client(t, http1), "POST", "http://"+p.at["active"]+"/", "x")
			want := http.StatusBadGateway
			if name == "a long head" {
				want = http.StatusServiceUnavailable // which the connection does not survive
			}
			if resp.StatusCode != want || !strings.Contains(body, `"processed":"unknown"`) {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
		})
	}
}

// An answer that is shorter or longer than it says, or that breaks off, does not look whole.
func TestHalfAnHTTP2Answer(t *testing.T) {
	for name, finish := range map[string]func(fr frames, id uint32){
		"shorter":    func(fr frames, id uint32) { _ = fr.WriteData(id, true, []byte("x")) },
		"longer":     func(fr frames, id uint32) { _ = fr.WriteData(id, true, make([]byte, 11)) },
		"RST_STREAM": func(fr frames, id uint32) { _ = fr.WriteRSTStream(id, wire.ErrCodeInternal) },
	} {
		t.Run(name, func(t *testing.T) {
			url := frameScript(t, nil, func(_ int, fr frames) {
				id, _, _ := fr.request()
				fr.head(id, false, ":status", "200", "content-length", "10")
				finish(fr, id)
				fr.rest()
			})
			p := protect(t, upstream.Config{URL: url})
			resp, err := client(t, http1).Post("http://"+p.at["active"]+"/", "", nil)
			if err != nil {
				return // nothing of it was sent yet
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err == nil && resp.StatusCode == 200 {
				t.Errorf("%d bytes look whole", len(b))
			}
		})
	}
}

// An application that takes one request at a time on a connection gets more connections, and never more requests on one.
func TestStreamsAreLimited(t *testing.T) {
	var asked atomic.Int32
	all := make(chan struct{})
	url := frameScript(t, []wire.Setting{{ID: wire.SettingMaxConcurrentStreams, Val: 1}}, func(_ int, fr frames) {
		for {
			id, _, _ := fr.request()
			if id == 0 {
				return
			}
			if asked.Add(1) == 4 {
				close(all)
			}
			<-all // four requests wait, each on a connection of its own
			fr.head(id, true, ":status", "204")
		}
	})
	p := protect(t, upstream.Config{URL: url})
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			if resp, _ := do(t, client(t, http1), "GET", "http://"+p.at["active"]+"/", ""); resp.StatusCode != 204 {
				t.Error(resp.StatusCode)
			}
		})
	}
	done.Wait()
}

// RFC 9113 §5.2, both ways: not a byte more is sent than the application lets in; and a client that does not read holds up
// neither the memory of this node (P12) nor the other requests of the connection.
func TestFlowControl(t *testing.T) {
	const window, length = 100, 2000
	sent := make(chan int64, 1)
	url := frameScript(t, []wire.Setting{{ID: wire.SettingInitialWindowSize, Val: window}}, func(_ int, fr frames) {
		got, granted := 0, window
		for got < length {
			f, err := fr.ReadFrame()
			if err != nil {
				t.Errorf("after %d bytes: %v", got, err)
				return
			}
			if d, ok := f.(*wire.DataFrame); ok {
				if got += len(d.Data()); got > granted {
					t.Errorf("%d bytes, %d granted", got, granted)
				}
				if got == granted && got < length {
					granted += window
					_ = fr.WriteWindowUpdate(d.StreamID, window)
				}
			}
		}
		// An answer that nobody reads: as much as the windows let in.
		fr.head(1, false, ":status", "200")
		n := int64(0)
		for n < 64<<10 {
			_ = fr.WriteData(1, false, make([]byte, 16<<10))
			n += 16 << 10
		}
		sent <- n
		for {
			id, _, _ := fr.request()
			if id == 0 {
				return
			}
			fr.head(id, true, ":status", "204")
		}
	})
	p := protect(t, upstream.Config{URL: url})
	nc, err := net.Dial("tcp", p.at["active"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", length, strings.Repeat("x", length))
	select {
	case <-sent:
	case <-time.After(limit):
		t.Fatal("the answer is not let in")
	}
	if resp, _ := do(t, client(t, http1), "GET", "http://"+p.at["active"]+"/", ""); resp.StatusCode != 204 {
		t.Error(resp.StatusCode)
	}
}

// P12: an application that is silent, its answers to pings included, is given up; a connection that nobody uses is closed.
func TestSilentConnections(t *testing.T) {
	closed := make(chan struct{}, 10)
	url := frameScript(t, nil, func(n int, fr frames) {
		id, _, _ := fr.request()
		if n > 1 {
			fr.head(id, true, ":status", "204")
		}
		_, _ = io.Copy(io.Discard, fr.nc)
		closed <- struct{}{}
	})
	p := protect(t, upstream.Config{URL: url, IdleTimeout: 100 * time.Millisecond})
	c := client(t, http1)
	if resp, body := do(t, c, "POST", "http://"+p.at["active"]+"/", "x"); resp.StatusCode != 503 || !strings.Contains(body, `"processed":"unknown"`) {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if resp, body := do(t, c, "GET", "http://"+p.at["active"]+"/", ""); resp.StatusCode != 204 {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	for range 2 {
		select {
		case <-closed:
		case <-time.After(limit):
			t.Fatal("a connection that is of no use stays")
		}
	}
}
