package resp

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// channelCommands publish and subscribe. A message reaches the subscribers on every node, in one order.
var channelCommands = []command{
	{name: "publish", arity: 3, traits: fast, run: (*conn).publish},
	{name: "subscribe", arity: -2, traits: whileSubscribed | notInMulti, run: (*conn).subscribe},
	{name: "unsubscribe", arity: -1, traits: whileSubscribed | notInMulti, run: (*conn).unsubscribe},
}

// maxChannels is how many channels a client may subscribe to.
const maxChannels = 10000

// hub passes messages on to this node's subscribers.
type hub struct {
	limit int // bytes that may wait for one subscriber

	mu       sync.Mutex
	channels map[string]map[*inbox]struct{}
}

// run takes messages from the store until ctx ends.
func (h *hub) run(ctx context.Context, store Store, log *slog.Logger) {
	const pause = 200 * time.Millisecond
	for ctx.Err() == nil {
		err := store.Subscribe(ctx, h.deliver, h.lost)
		if ctx.Err() != nil {
			return
		}
		h.lost() // what comes until the next Subscribe is missed
		log.Warn("RESP: messages cannot be received; subscribers were disconnected", "error", err)
		wait(ctx, pause)
	}
}

// deliver puts a message into every subscriber's inbox. It waits for none of them.
func (h *hub) deliver(channel string, message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for in := range h.channels[channel] {
		in.put(channel, message, h.limit)
	}
}

// lost disconnects the subscribers: that is how a client of Redis learns that it may have missed something.
func (h *hub) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, subscribers := range h.channels {
		for in := range subscribers {
			in.close("messages were missed")
		}
	}
}

// leave takes a connection out of every channel.
func (h *hub) leave(c *conn) {
	if c.inbox == nil {
		return
	}
	for _, channel := range c.inbox.list() {
		h.remove(c.inbox, channel)
	}
}

func (h *hub) add(in *inbox, channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.channels == nil {
		h.channels = map[string]map[*inbox]struct{}{}
	}
	if h.channels[channel] == nil {
		h.channels[channel] = map[*inbox]struct{}{}
	}
	h.channels[channel][in] = struct{}{}
}

func (h *hub) remove(in *inbox, channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.channels[channel], in)
	if len(h.channels[channel]) == 0 {
		delete(h.channels, channel)
	}
}

func (h *hub) subscribers(channel string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.channels[channel])
}

// inbox is what waits to be written to a subscriber. Its goroutine ends with the connection's.
type inbox struct {
	conn *conn
	wake chan struct{} // has room for one
	done chan struct{} // closed when its goroutine has ended

	mu       sync.Mutex
	channels map[string]struct{}
	order    []string // of channels, as they were subscribed to
	frames   []byte
	closed   bool
}

func (in *inbox) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.channels)
}

func (in *inbox) list() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]string(nil), in.order...)
}

// put appends a message, or gives the subscriber up if it does not keep pace.
func (in *inbox) put(channel string, message []byte, limit int) {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	if len(in.frames)+len(message) > limit {
		in.mu.Unlock()
		in.close("slow subscriber")
		return
	}
	w := writer{buf: in.frames, resp3: in.conn.protocol() == 3}
	w.push(3)
	w.text("message")
	w.text(channel)
	w.bulk(message)
	in.frames = w.buf
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default: // its goroutine has been told already
	}
}

// close ends the connection, which then takes the inbox out of the hub.
func (in *inbox) close(why string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return
	}
	in.closed, in.frames = true, nil
	in.conn.server.cfg.Observer.Refused(why)
	_ = in.conn.raw.Close() // the connection's goroutine notices
}

// run writes what comes in, until ctx ends.
func (in *inbox) run(ctx context.Context) {
	defer close(in.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-in.wake:
		}
		in.conn.out.Lock() // first: what is answered before is written before
		in.mu.Lock()
		frames := in.frames
		in.frames = nil
		in.mu.Unlock()
		err := in.conn.write(frames)
		in.conn.out.Unlock()
		if err != nil {
			in.close("slow subscriber")
			return
		}
	}
}

func (c *conn) publish(args [][]byte) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.server.cfg.CommandTimeout)
	defer cancel()
	channel := string(args[1])
	if err := c.server.store.Publish(ctx, channel, args[2]); err != nil {
		c.w.fail(errorText(err))
		return nil
	}
	c.w.integer(int64(c.server.hub.subscribers(channel)))
	return nil
}

// subscribe answers and lets messages in, in this order: out is held for as long as both take.
func (c *conn) subscribe(args [][]byte) error {
	if c.inbox == nil {
		c.inbox = &inbox{conn: c, wake: make(chan struct{}, 1), done: make(chan struct{}), channels: map[string]struct{}{}}
		go c.inbox.run(c.ctx) // serve waits for it
	}
	if c.inbox.count()+len(args) > maxChannels {
		c.w.fail("ERR too many channels")
		return nil
	}
	c.out.Lock()
	defer c.out.Unlock()
	for _, arg := range args[1:] {
		channel := string(arg)
		c.inbox.mu.Lock()
		if _, twice := c.inbox.channels[channel]; !twice {
			c.inbox.channels[channel] = struct{}{}
			c.inbox.order = append(c.inbox.order, channel)
		}
		n := len(c.inbox.channels)
		c.inbox.mu.Unlock()
		c.server.hub.add(c.inbox, channel)
		c.confirm("subscribe", arg, n)
	}
	return c.flushLocked()
}

func (c *conn) unsubscribe(args [][]byte) error {
	channels := args[1:]
	if len(channels) == 0 && c.inbox != nil {
		for _, channel := range c.inbox.list() {
			channels = append(channels, []byte(channel))
		}
	}
	if len(channels) == 0 {
		c.confirm("unsubscribe", nil, 0)
		return nil
	}
	for _, channel := range channels {
		c.confirm("unsubscribe", channel, c.drop(string(channel)))
	}
	return nil
}

// drop ends one subscription and returns how many are left.
func (c *conn) drop(channel string) int {
	if c.inbox == nil {
		return 0
	}
	c.server.hub.remove(c.inbox, channel)
	in := c.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, there := in.channels[channel]; there {
		delete(in.channels, channel)
		for i, name := range in.order {
			if name == channel {
				in.order = append(in.order[:i], in.order[i+1:]...)
				break
			}
		}
	}
	return len(in.channels)
}

// confirm writes what SUBSCRIBE and UNSUBSCRIBE answer for each channel.
func (c *conn) confirm(what string, channel []byte, n int) {
	c.w.push(3)
	c.w.text(what)
	c.w.value(channel, channel != nil)
	c.w.integer(int64(n))
	c.describe(func(l *label) { l.subscriptions = n })
}
