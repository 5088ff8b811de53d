package upstream_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	wire "golang.org/x/net/http2"

	"github.com/locum-ha/locum/forward/upstream"
)

// modelApp is an application over HTTP/2 that does whatever the standard allows, by chance, and holds the other side to it: windows, the
// order of streams, one end for each. What it is to do with a request stands in its path.
type modelApp struct {
	t     *testing.T
	mu    sync.Mutex // over all that follows, on all connections
	cond  sync.Cond
	rng   *rand.Rand
	asked map[string]int // deliveries that were looked at, by path
	ended sync.WaitGroup // connections
}

type modelConn struct {
	*modelApp
	fr      frames
	dead    bool
	last    uint32 // of the streams that were opened
	leaving bool   // it was said that nothing more is looked at
	streams map[uint32]*modelStream

	window, initial  int64   // of answers
	allowed, granted int64   // of requests: for the connection, and for a new stream
	settings         []int64 // that were sent and not acknowledged: windows for a new stream
	frame, handlers  int
}

type modelStream struct {
	id              uint32
	path            string
	window, allowed int64
	got             int
	ended, reset    bool // by the other side
	cut             bool // by this one
}

func (a *modelApp) serve(_ int, fr frames) {
	c := &modelConn{modelApp: a, fr: fr, streams: map[uint32]*modelStream{}, window: 65535, initial: 65535, allowed: 65535, granted: 65535}
	a.ended.Add(1)
	defer a.ended.Done()
	_ = fr.nc.SetDeadline(time.Now().Add(6 * limit)) // one connection carries nearly all
	for {
		f, err := fr.ReadFrame()
		a.mu.Lock()
		if err != nil {
			c.dead = true
			a.cond.Broadcast()
			a.mu.Unlock()
			return
		}
		c.take(f)
		a.cond.Broadcast()
		a.mu.Unlock()
	}
}

func (c *modelConn) take(f wire.Frame) {
	switch f := f.(type) {
	case *wire.SettingsFrame:
		c.settle(f)
	case *wire.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else if s := c.streams[f.StreamID]; s != nil {
			s.window += int64(f.Increment)
		}
	case *wire.RSTStreamFrame:
		if s := c.streams[f.StreamID]; s != nil {
			s.reset = true
		} else if f.StreamID > c.last {
			c.t.Errorf("RST_STREAM for stream %d, of which nothing was said", f.StreamID)
		}
	case *wire.MetaHeadersFrame:
		c.head(f)
	case *wire.DataFrame:
		c.data(f)
	}
	if c.frame++; c.frame%50 == 0 {
		c.whim()
	}
}

// whim does something that is allowed at any time.
func (c *modelConn) whim() {
	switch c.rng.IntN(3) {
	case 0:
		_ = c.fr.WritePing(false, [8]byte{1})
	case 1:
		w := int64(c.rng.IntN(100_000))
		c.settings = append(c.settings, w)
		_ = c.fr.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: uint32(w)},
			wire.Setting{ID: wire.SettingMaxFrameSize, Val: uint32(16<<10 + c.rng.IntN(32<<10))},
			wire.Setting{ID: wire.SettingHeaderTableSize, Val: uint32(c.rng.IntN(8 << 10))})
	default:
		_ = c.fr.WriteRawFrame(0xfa, 0, 0, []byte("unknown"))
	}
}

func (c *modelConn) settle(f *wire.SettingsFrame) {
	if f.IsAck() {
		if len(c.settings) > 0 { // else it is for those of the greeting
			w := c.settings[0]
			c.settings = c.settings[1:]
			for _, s := range c.streams {
				s.allowed += w - c.granted
				c.grant(s)
			}
			c.granted = w
		}
		return
	}
	if w, ok := f.Value(wire.SettingInitialWindowSize); ok {
		for _, s := range c.streams {
			s.window += int64(w) - c.initial
		}
		c.initial = int64(w)
	}
	_ = c.fr.WriteSettingsAck()
}

// grant lets more of a request in, sometimes little.
func (c *modelConn) grant(s *modelStream) {
	if s.allowed <= 0 && !s.ended && !s.reset && !s.cut {
		n := -s.allowed + 1 + int64(c.rng.IntN(40_000))
		s.allowed += n
		_ = c.fr.WriteWindowUpdate(s.id, uint32(n))
	}
	if c.allowed < 30_000 {
		c.allowed += 50_000
		_ = c.fr.WriteWindowUpdate(0, 50_000)
	}
}

func (c *modelConn) head(f *wire.MetaHeadersFrame) {
	if s := c.streams[f.StreamID]; s != nil { // trailers
		if s.ended || !f.StreamEnded() {
			c.t.Errorf("stream %d: a second head", s.id)
		}
		s.ended = true
		return
	}
	if f.StreamID <= c.last || f.StreamID%2 == 0 {
		c.t.Errorf("stream %d after %d", f.StreamID, c.last)
	}
	c.last = f.StreamID
	s := &modelStream{id: f.StreamID, path: f.PseudoValue("path"), window: c.initial, allowed: c.granted, ended: f.StreamEnded()}
	c.streams[s.id] = s
	if c.leaving {
		return // it was said that this is not looked at
	}
	c.asked[s.path]++
	first := c.asked[s.path] == 1
	c.grant(s)
	c.ended.Go(func() { c.answer(s, first) })
}

func (c *modelConn) data(f *wire.DataFrame) {
	s := c.streams[f.StreamID]
	if s == nil {
		c.t.Errorf("DATA for stream %d, of which nothing was said", f.StreamID)
		return
	}
	n := int64(f.Length)
	if s.allowed, c.allowed = s.allowed-n, c.allowed-n; n > 0 && (s.allowed < 0 || c.allowed < 0) {
		c.t.Errorf("stream %d: %d bytes beyond its window, %d beyond the connection's", s.id, -s.allowed, -c.allowed)
	}
	if s.ended || s.reset {
		c.t.Errorf("stream %d: DATA after its end", s.id)
	}
	s.got += len(f.Data())
	s.ended = f.StreamEnded()
	c.grant(s)
}

// answer does with a request what its path says.
func (c *modelConn) answer(s *modelStream, first bool) {
	u, _ := url.Parse(s.path)
	q := u.Query()
	size, _ := strconv.Atoi(q.Get("size"))
	c.mu.Lock()
	defer c.mu.Unlock()
	act := q.Get("act")
	switch {
	case act == "refuse" && first:
		_ = c.fr.WriteRSTStream(s.id, wire.ErrCodeRefusedStream)
		s.cut = true
		return
	case act == "goaway" && first && !c.leaving && s.id == c.last: // else others behind it are being looked at
		c.leaving = true
		_ = c.fr.WriteGoAway(max(s.id, 2)-2, wire.ErrCodeNo, nil)
		return
	}
	for act != "early" && !s.ended && !s.reset && !c.dead {
		c.cond.Wait()
	}
	for range c.rng.IntN(3) {
		c.fr.head(s.id, false, ":status", "103", "link", "x")
	}
	c.fr.head(s.id, false, ":status", "200", "x-got", strconv.Itoa(s.got))
	for at := 0; at < size; {
		for s.window <= 0 || c.window <= 0 {
			if s.reset || c.dead {
				return
			}
			c.cond.Wait()
		}
		if s.reset || c.dead {
			return
		}
		if act == "reset" && at > size/2 {
			_ = c.fr.WriteRSTStream(s.id, wire.ErrCodeInternal)
			s.cut = true
			return
		}
		n := min(int64(size-at), s.window, c.window, int64(1+c.rng.IntN(16<<10)))
		pad := []byte(nil)
		if room := min(s.window, c.window, 16<<10) - n - 1; room > 0 && c.rng.IntN(4) == 0 {
			pad = make([]byte, min(room, 100))
		}
		var err error
		if cost := n; pad == nil {
			err = c.fr.WriteData(s.id, false, pattern(at, int(n)))
			s.window, c.window = s.window-cost, c.window-cost
		} else {
			cost += int64(len(pad)) + 1
			err = c.fr.WriteDataPadded(s.id, false, pattern(at, int(n)), pad)
			s.window, c.window = s.window-cost, c.window-cost
		}
		if err != nil {
			return
		}
		at += int(n)
		c.mu.Unlock() // others may have a turn
		c.mu.Lock()
	}
	c.fr.head(s.id, true, "x-whole", "yes")
	if act == "early" && !s.ended && !s.reset {
		_ = c.fr.WriteRSTStream(s.id, wire.ErrCodeNo) // RFC 9113 §8.1
		s.cut = true
	}
}

func pattern(at, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte((at + i) * 7 / 5)
	}
	return p
}

// P6, P12 and RFC 9113 under chance: refused streams, farewells with streams in flight, settings that change in between, informational
// answers, padding, trailers, resets on either side, clients that give up. Every answer that looks whole is; what was not looked at is delivered
// again; and at the end nothing is left of any request.
func TestHTTP2Model(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	app := &modelApp{t: t, rng: rand.New(rand.NewPCG(seed, 1)), asked: map[string]int{}}
	app.cond.L = &app.mu
	url := frameScript(t, nil, app.serve)
	p := protect(t, upstream.Config{URL: url})
	var workers sync.WaitGroup
	for w := range 12 {
		workers.Go(func() {
			c, rng := client(t, http1), rand.New(rand.NewPCG(seed, uint64(w)+2))
			c.Timeout = 6 * limit
			for i := range 16 {
				modelRequest(t, c, rng, p.at["active"], fmt.Sprintf("%d-%d", w, i))
			}
		})
	}
	workers.Wait()
	p.up.Close()
	over := make(chan struct{})
	go func() {
		app.ended.Wait()
		close(over)
	}()
	select {
	case <-over: // every connection was closed, since nothing was under way on it
	case <-time.After(3 * limit):
		t.Error("something is left of a request: a connection stays")
	}
}

func modelRequest(t *testing.T, c *http.Client, rng *rand.Rand, addr, name string) {
	acts := []string{"ok", "ok", "ok", "refuse", "goaway", "reset", "early", "cancel"}
	act, size, length := acts[rng.IntN(len(acts))], rng.IntN(300_000), rng.IntN(2)*rng.IntN(200_000)
	if act == "early" {
		length = rng.IntN(2000)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var body io.Reader
	if length > 0 {
		body = strings.NewReader(strings.Repeat("x", length))
		if rng.IntN(2) == 0 {
			body = io.MultiReader(body) // chunked
		}
	}
	req, err := http.NewRequestWithContext(ctx, "POST", fmt.Sprintf("http://%s/%s?act=%s&size=%d", addr, name, act, size), body)
	if err != nil {
		t.Error(err)
		return
	}
	req.Close = act == "early" // net/http's server goes on with what is left of the request otherwise
	resp, err := c.Do(req)
	if err != nil {
		if act != "reset" {
			t.Errorf("%s %s: %v", name, act, err)
		}
		return
	}
	defer resp.Body.Close()
	if act == "cancel" {
		_, _ = io.ReadFull(resp.Body, make([]byte, size/2))
		return
	}
	got, err := io.ReadAll(resp.Body)
	switch {
	case act == "reset":
		if err == nil && resp.StatusCode == 200 && size > 40_000 {
			t.Errorf("%s: %d bytes look whole", name, len(got))
		}
	case err != nil || resp.StatusCode != 200 || string(got) != string(pattern(0, size)) || size > 10_000 && resp.Trailer.Get("X-Whole") != "yes": // net/http's server drops those of a short answer
		t.Errorf("%s %s, %d up, %d down: %d, %d bytes, trailer %v, %v, %.200q", name, act, length, size, resp.StatusCode, len(got), resp.Trailer, err, got[:min(len(got), 200)])
	case act != "early" && resp.Header.Get("X-Got") != strconv.Itoa(length):
		t.Errorf("%s %s: %s bytes of the request came, of %d", name, act, resp.Header.Get("X-Got"), length)
	}
}
