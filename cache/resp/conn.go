package resp

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

const (
	flushAt      = 64 << 10 // bytes of answers that are not kept back for more
	batchOps     = 1024     // that writes of a pipeline are gathered up to
	batchBytes   = 1 << 20
	keepOutput   = 256 << 10
	tlsHandshake = 10 * time.Second
)

// errQuit ends a connection after its answers.
var errQuit = errors.New("client quits")

// conn is one client. Its fields belong to the goroutine of serve, but for those that say otherwise.
type conn struct {
	server *Server
	raw    net.Conn // for others to close
	nc     net.Conn // raw, or TLS over it
	id     uint64
	since  time.Time
	in     reader
	w      writer
	ctx    context.Context
	end    context.CancelFunc

	limit    context.Context // see limited
	limitEnd context.CancelFunc
	limitSet time.Time

	db     int
	authed bool
	hurry  bool // the limit to authenticate is running
	level  Level
	weak   bool // it has written below LevelQuorum, or without knowing the outcome, since the last WAIT
	silent silence

	batch batch
	multi *transaction // nil outside MULTI
	watch []watched

	out   sync.Mutex // held while something is written to nc
	armed time.Time  // when the limit of a write was set last; guarded by out
	inbox *inbox     // nil until SUBSCRIBE

	// What other connections see by CLIENT LIST.
	spoke atomic.Int64            // when the client sent something last, nanoseconds since the epoch
	last  atomic.Pointer[command] // that it sent
	seen  sync.Mutex              // guards label
	label label
}

// label is what CLIENT LIST tells of a connection.
type label struct {
	name, library, libraryVersion string
	db, version, subscriptions    int
	queued                        int // -1 outside MULTI
}

// silence is what CLIENT REPLY asked for.
type silence uint8

const (
	speaking silence = iota
	silent
	skipNext // the next command's answer
	skipThis
)

func newConn(s *Server, nc net.Conn) *conn {
	now := time.Now()
	c := &conn{server: s, raw: nc, nc: quickio.Conn(nc), id: s.lastID.Add(1), since: now, authed: s.cfg.Password == ""}
	if s.cfg.TLS != nil {
		c.nc = tls.Server(c.nc, s.cfg.TLS)
	}
	c.in = reader{from: c.nc, maxArgs: s.cfg.MaxArgs, maxBytes: s.cfg.MaxCommand}
	c.spoke.Store(now.UnixNano())
	c.label = label{version: 2, queued: -1}
	return c
}

// serve is the connection's life. The caller closes it.
func (c *conn) serve(ctx context.Context) {
	c.ctx, c.end = context.WithCancel(ctx)
	defer c.close()
	if secured, ok := c.nc.(*tls.Conn); ok && !c.shake(secured) {
		return
	}
	for {
		err := c.commands()
		if err == nil {
			c.settle()
			err = c.flush()
		}
		if err == nil {
			err = c.awaited()
		}
		if err == nil {
			err = c.in.fill()
		}
		if err != nil {
			c.finish(err)
			return
		}
		c.spoke.Store(time.Now().UnixNano())
	}
}

// awaited sets the limit for what is waited for next: a client that has yet to authenticate has one.
func (c *conn) awaited() error {
	if c.hurry == !c.authed {
		return nil
	}
	c.hurry = !c.authed
	var limit time.Time
	if c.hurry {
		limit = time.Now().Add(c.server.cfg.AuthTimeout)
	}
	return c.nc.SetReadDeadline(limit)
}

// close ends what the connection began.
func (c *conn) close() {
	_ = c.raw.Close() // first: the inbox's goroutine may be writing
	c.end()
	if c.inbox != nil {
		<-c.inbox.done
	}
}

func (c *conn) shake(secured *tls.Conn) bool {
	ctx, cancel := context.WithTimeout(c.ctx, tlsHandshake)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		c.server.cfg.Logger.Debug("RESP: TLS handshake failed", "client", c.raw.RemoteAddr().String(), "error", err)
		return false
	}
	return true
}

// finish answers what is still to be answered.
func (c *conn) finish(err error) {
	c.settle()
	var bad protocolError
	if errors.As(err, &bad) {
		c.server.cfg.Observer.Refused("protocol")
		c.w.fail("ERR " + bad.Error())
	} else if errors.Is(err, io.EOF) && len(c.w.buf) == 0 {
		return
	}
	_ = c.flush() // the client may be gone
}

// commands carries out all that is in the buffer.
func (c *conn) commands() error {
	for {
		args, err := c.in.next(c.authed)
		switch {
		case errors.Is(err, errMore):
			return nil
		case err != nil:
			return err
		case len(args) == 0:
			continue
		}
		if err := c.command(args); err != nil {
			return err
		}
		if len(c.w.buf) > flushAt {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
}

// flush writes the answers. What is gathered but not carried out has none yet.
func (c *conn) flush() error {
	if len(c.w.buf) == 0 {
		return nil
	}
	c.out.Lock()
	defer c.out.Unlock()
	return c.flushLocked()
}

func (c *conn) flushLocked() error {
	err := c.write(c.w.buf)
	if cap(c.w.buf) > keepOutput {
		c.w.buf = nil
	}
	c.w.buf = c.w.buf[:0]
	return err
}

// write needs out.
func (c *conn) write(b []byte) error {
	limit := c.server.cfg.WriteTimeout
	if now := time.Now(); now.Sub(c.armed) > limit/2 { // not with each write: it costs
		if err := c.nc.SetWriteDeadline(now.Add(limit + limit/2)); err != nil {
			return err
		}
		c.armed = now
	}
	_, err := c.nc.Write(b)
	return err
}

// command carries one out, or gathers it.
func (c *conn) command(args [][]byte) error {
	cmd := find(args[0])
	c.server.commands.Add(1)
	if c.silent != speaking {
		return c.quietly(cmd, args)
	}
	return c.dispatch(cmd, args)
}

// dispatch checks whether the command may be carried out now, and does.
func (c *conn) dispatch(cmd *command, args [][]byte) error {
	if refusal := c.refuse(cmd, args); refusal != "" {
		c.settle()
		if cmd == &commandExec {
			c.leaveMulti()
			refusal = "EXECABORT Transaction discarded because of: " + strings.TrimPrefix(refusal, "ERR ")
		} else if c.multi != nil {
			c.multi.broken = true
		}
		c.w.fail(refusal)
		return nil
	}
	c.last.Store(cmd)
	if c.multi != nil && !cmd.has(inMulti) {
		c.queue(cmd, args)
		return nil
	}
	if cmd.read != nil {
		c.settle()
		cmd.read(c, args)
		return nil
	}
	if cmd.plan != nil {
		c.gather(cmd, args)
		return nil
	}
	c.settle()
	return cmd.run(c, args)
}

// refuse says why a command is not carried out at all; "" if it may be.
func (c *conn) refuse(cmd *command, args [][]byte) string {
	switch {
	case cmd == nil:
		return unknownCommand(args)
	case cmd.arity > 0 && len(args) != cmd.arity, len(args) < -cmd.arity:
		return wrongNumber(cmd.name)
	case !c.authed && !cmd.has(noAuth):
		return "NOAUTH Authentication required."
	case c.inbox != nil && !c.w.resp3 && !cmd.has(whileSubscribed) && c.inbox.count() > 0:
		return "ERR Can't execute '" + cmd.name + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
	case c.multi != nil && cmd.has(notInMulti):
		return "ERR Command not allowed inside a transaction"
	}
	return ""
}

func wrongNumber(name string) string {
	return "ERR wrong number of arguments for '" + name + "' command"
}

// unknownCommand is Redis's wording, which shows the beginning of the arguments.
func unknownCommand(args [][]byte) string {
	var shown strings.Builder
	for _, arg := range args[1:] {
		if shown.Len() >= 128 {
			break
		}
		shown.WriteString("'" + string(arg[:min(len(arg), 128-shown.Len())]) + "' ")
	}
	return "ERR unknown command '" + string(args[0][:min(len(args[0]), 128)]) + "', with args beginning with: " + shown.String()
}

// quietly carries a command out after CLIENT REPLY OFF or SKIP: what it answers is dropped, but for what SUBSCRIBE has sent already, as
// Redis sends it, too.
func (c *conn) quietly(cmd *command, args [][]byte) error {
	c.settle()
	if err := c.flush(); err != nil { // so that nothing of others is left where its answer goes
		return err
	}
	if c.silent == skipNext {
		c.silent = skipThis
	}
	err := c.dispatch(cmd, args)
	c.settle()
	switch c.silent {
	case skipThis:
		c.silent = speaking
		c.w.buf = c.w.buf[:0]
	case silent, skipNext:
		c.w.buf = c.w.buf[:0]
	}
	return err
}

// describe changes what CLIENT LIST shows.
func (c *conn) describe(change func(*label)) {
	c.seen.Lock()
	defer c.seen.Unlock()
	change(&c.label)
}

// authenticate compares user and password in constant time.
func (c *conn) authenticate(user, password []byte) bool {
	want := []byte(c.server.cfg.Password)
	same := subtle.ConstantTimeCompare(password, want) == 1
	if string(user) != "default" || !same && len(want) > 0 {
		c.server.cfg.Observer.Refused("auth")
		return false
	}
	c.authed = true
	return true
}
