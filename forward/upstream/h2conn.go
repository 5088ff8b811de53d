package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	firstWindow  = 64 << 10 // bytes that the application may send ahead of what was passed on, for one request
	streamWindow = 1 << 20  // … once its client has shown that it reads, and while others leave some of growWindow
	growWindow   = 16 << 20 // for all requests of a connection
	pingEvery    = 15 * time.Second
	maxStreams   = 1000     // at a time
	frameSize    = 16 << 10 // the longest that is read

	// connWindow is never what holds the application up: clients that do not read would use it up, and hold up those that do. An
	// eighth of it may not have been given back yet.
	connWindow = 96 << 20
)

// h2conn is a connection to the application over HTTP/2, for many requests at a time. Invariants: what is written, and the order of
// the streams' numbers, is under wmu; everything else is under mu, which is taken after wmu and held across no I/O.
type h2conn struct {
	h     *http2
	nc    net.Conn
	fr    *wire.Framer // read by run alone
	canon map[string]string

	frames atomic.Uint64 // read so far

	wmu   sync.Mutex
	enc   *hpack.Encoder
	block bytes.Buffer // what enc writes to
	lower map[string]string
	next  uint32 // the number of the next stream; changed under mu, too

	mu       sync.Mutex
	room     sync.Cond // somebody may send more, or never will
	calls    map[uint32]*call
	reserved int    // calls that will be opened
	most     uint32 // calls at a time
	window   int64  // bytes that may be sent
	initial  int64  // … for a new call
	maxFrame int
	owed     int   // bytes passed on that the application has not been told of
	taken    int   // bytes received and not told of: at most connWindow
	grown    int   // what the windows of calls are beyond firstWindow: at most growWindow
	last     bool  // no more calls are opened
	err      error // why it is over
	idle     int   // ticks without a call
	seen     uint64
	pinged   bool
	due      time.Time // of the next tick
	timer    *time.Timer
}

// connect makes a connection, and waits until the application has said that it speaks HTTP/2. Nothing is delivered before.
func (h *http2) connect(ctx context.Context) (*h2conn, error) {
	nc, err := h.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &h2conn{
		h: h, nc: nc, fr: wire.NewFramer(nc, bufio.NewReaderSize(nc, readBuffer)), canon: map[string]string{}, lower: map[string]string{}, next: 1,
		calls: map[uint32]*call{}, most: maxStreams, window: 65535, initial: 65535, maxFrame: 16 << 10,
	}
	c.room.L = &c.mu
	c.enc = hpack.NewEncoder(&c.block)
	c.fr.SetReuseFrames()
	c.fr.SetMaxReadFrameSize(frameSize)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.fr.MaxHeaderListSize = uint32(h.u.cfg.MaxHeaderBytes)
	_ = nc.SetDeadline(time.Now().Add(h.u.cfg.DialTimeout))
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err = c.greet()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		abort(nc)
		return nil, fmt.Errorf("upstream: no HTTP/2 with the application: %w", err)
	}
	_ = nc.SetDeadline(time.Time{})
	c.due = time.Now().Add(c.tickEvery())
	c.timer = time.AfterFunc(c.tickEvery(), c.tick)
	go c.run() // ends with the connection, and that with its last request
	return c, nil
}

func (c *h2conn) greet() error {
	if _, err := io.WriteString(c.nc, wire.ClientPreface); err != nil {
		return err
	}
	err := c.fr.WriteSettings(wire.Setting{ID: wire.SettingEnablePush}, wire.Setting{ID: wire.SettingInitialWindowSize, Val: firstWindow},
		wire.Setting{ID: wire.SettingMaxHeaderListSize, Val: uint32(c.h.u.cfg.MaxHeaderBytes)})
	if err == nil {
		err = c.fr.WriteWindowUpdate(0, connWindow-65535)
	}
	if err != nil {
		return err
	}
	f, err := c.fr.ReadFrame()
	if err != nil {
		return err
	}
	s, ok := f.(*wire.SettingsFrame)
	if !ok || s.IsAck() {
		return fmt.Errorf("it begins with %v", f.Header().Type)
	}
	if err := c.settings(s); err != nil {
		return err
	}
	if c.most == 0 {
		return errors.New("it takes no requests")
	}
	return nil
}

// run reads until the connection is over.
func (c *h2conn) run() {
	for {
		f, err := c.fr.ReadFrame()
		c.frames.Add(1)
		var bad wire.StreamError
		switch {
		case errors.As(err, &bad):
			c.broken(bad.StreamID, &badAnswer{err}, false)
			continue
		case err == nil:
			err = c.take(f)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// take is told every frame. An error ends the connection.
func (c *h2conn) take(f wire.Frame) error {
	switch f := f.(type) {
	case *wire.MetaHeadersFrame:
		return c.head(f)
	case *wire.DataFrame:
		return c.data(f)
	case *wire.RSTStreamFrame:
		err := error(fmt.Errorf("the application reset the stream: %v", f.ErrCode))
		if f.ErrCode == wire.ErrCodeRefusedStream {
			err = &notSent{err}
		}
		c.broken(f.StreamID, err, true)
	case *wire.SettingsFrame:
		return c.settings(f)
	case *wire.PingFrame:
		if !f.IsAck() {
			c.wmu.Lock()
			defer c.wmu.Unlock()
			return c.fr.WritePing(true, f.Data)
		}
	case *wire.WindowUpdateFrame:
		return c.grant(f)
	case *wire.GoAwayFrame:
		c.leave(f)
	case *wire.PushPromiseFrame:
		return errors.New("a push that was not asked for")
	}
	return nil
}

func (c *h2conn) settings(f *wire.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	err := f.ForeachSetting(func(s wire.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case wire.SettingMaxConcurrentStreams:
			c.most = min(s.Val, maxStreams)
		case wire.SettingMaxFrameSize:
			c.maxFrame = int(min(s.Val, 64<<10))
		case wire.SettingHeaderTableSize:
			c.enc.SetMaxDynamicTableSize(min(s.Val, 4096))
		case wire.SettingInitialWindowSize:
			for _, s2 := range c.calls {
				if s2.window += int64(s.Val) - c.initial; s2.window > maxWindow {
					return errWindow
				}
			}
			c.initial = int64(s.Val)
			c.room.Broadcast()
		}
		return nil
	})
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.fr.WriteSettingsAck()
}

// grant lets more be sent.
func (c *h2conn) grant(f *wire.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.room.Broadcast()
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return errWindow
		}
		return nil
	}
	if s := c.calls[f.StreamID]; s != nil { // else it is over
		if s.window += int64(f.Increment); s.window > maxWindow {
			s.end(errWindow) // RFC 9113 §6.9.1: the stream's fault alone
		}
	}
	return nil
}

const maxWindow = 1<<31 - 1

var errWindow = errors.New("a window beyond its limit")

// leave is the application's farewell: what came behind the last request that it names was not looked at.
func (c *h2conn) leave(f *wire.GoAwayFrame) {
	c.mu.Lock()
	c.last = true
	for id, s := range c.calls {
		if id > f.LastStreamID {
			s.end(&notSent{fmt.Errorf("the application leaves: %v", f.ErrCode)})
		}
	}
	over := c.unused()
	c.mu.Unlock()
	c.h.forget(c)
	if over {
		c.close()
	}
}

// unused is asked under mu, of a connection that takes no more requests.
func (c *h2conn) unused() bool { return c.last && len(c.calls)+c.reserved == 0 }

// broken ends one call; reset: the application has, and need not be told.
func (c *h2conn) broken(id uint32, err error, reset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.calls[id]; s != nil {
		s.reset = s.reset || reset
		s.end(err)
	}
}

// fail ends the connection and what is on it: nobody knows what became of that.
func (c *h2conn) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err, c.last = err, true
	}
	for _, s := range c.calls {
		s.end(c.err)
	}
	c.mu.Unlock()
	if first {
		c.timer.Stop()
		c.h.forget(c)
		abort(c.nc)
	}
}

// close is the end of a connection that nobody uses.
func (c *h2conn) close() {
	c.timer.Stop()
	c.h.forget(c)
	_ = c.nc.Close() // which ends run
}

func (c *h2conn) tickEvery() time.Duration { return min(pingEvery, c.h.u.cfg.IdleTimeout) }

// tick closes a connection that is not used, and finds out whether one that is silent is dead.
func (c *h2conn) tick() {
	c.mu.Lock()
	frames, every := c.frames.Load(), c.tickEvery()
	silent := frames == c.seen
	c.seen = frames
	// After a while in which this process did not run, the answer to a ping may be there and unread.
	stalled := time.Since(c.due) > every/4
	c.due = time.Now().Add(every)
	var unused, dead, ping bool
	switch {
	case len(c.calls)+c.reserved == 0:
		c.idle++
		unused = time.Duration(c.idle)*every >= c.h.u.cfg.IdleTimeout
		c.last = c.last || unused
	case silent && c.pinged && !stalled:
		dead = true
	case silent:
		ping = true
	}
	c.pinged = ping
	if c.err == nil && !unused && !dead {
		c.timer.Reset(every)
	}
	c.mu.Unlock()
	switch {
	case unused:
		c.close()
	case dead:
		c.fail(fmt.Errorf("the application does not answer a ping within %s", every))
	case ping:
		c.wmu.Lock()
		defer c.wmu.Unlock()
		_ = c.fr.WritePing(false, [8]byte{'l', 'o', 'c', 'u', 'm'}) // a broken connection shows to run
	}
}

// reserve makes room for one more call, if there is some.
func (c *h2conn) reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last || uint32(len(c.calls)+c.reserved) >= c.most {
		return false
	}
	c.reserved++
	c.idle = 0
	return true
}
