package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// ErrNotSent: no byte of the request left this program; the server cannot have carried it out.
var ErrNotSent = errors.New("not sent")

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Client talks HTTP/1.1 to one address over as many connections as there are requests at a time. Idle
// connections are kept and used again, the newest first.
type Client struct {
	address string
	header  string // sent with every request, in wire form
	dialer  net.Dialer

	mu   sync.Mutex
	idle []*Conn
}

// NewClient returns a client of address (host:port) that sends the token with every request.
func NewClient(address, token string) *Client {
	header := "Host: " + address + "\r\n"
	if token != "" {
		header += "X-Vault-Token: " + token + "\r\n"
	}
	return &Client{address: address, header: header}
}

// Do makes one attempt. An error that is not ErrNotSent leaves open whether the request was carried out.
func (c *Client) Do(ctx context.Context, method, path string, body []byte) (Answer, error) {
	conn, err := c.take(ctx)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	answer, keep, err := conn.Do(ctx, method, path, body)
	if err != nil || !keep {
		conn.Close()
		return answer, err
	}
	c.mu.Lock()
	c.idle = append(c.idle, conn)
	c.mu.Unlock()
	return answer, nil
}

// take gives an idle connection that the server has not closed, or a new one.
func (c *Client) take(ctx context.Context) (*Conn, error) {
	for {
		c.mu.Lock()
		last := len(c.idle) - 1
		if last < 0 {
			c.mu.Unlock()
			return c.Dial(ctx)
		}
		conn := c.idle[last]
		c.idle = c.idle[:last]
		c.mu.Unlock()
		if conn.alive() {
			return conn, nil
		}
		conn.Close()
	}
}

// Dial opens a connection that the client does not keep: its owner sends on it and closes it.
func (c *Client) Dial(ctx context.Context) (*Conn, error) {
	conn, err := c.dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: conn, r: bufio.NewReaderSize(conn, 4096), header: c.header}, nil
}

// Close closes the idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle {
		conn.Close()
	}
	c.idle = nil
}

// Conn is one connection, for one request at a time.
type Conn struct {
	net.Conn
	r      *bufio.Reader
	header string
	buffer []byte
}

// Do sends one request and reads its answer. keep says whether the connection can be used again.
func (c *Conn) Do(ctx context.Context, method, path string, body []byte) (answer Answer, keep bool, err error) {
	if err := c.Send(ctx, method, path, body); err != nil {
		return Answer{}, false, err
	}
	return c.Receive(ctx, method)
}

// Send writes a request and does not wait for the answer.
func (c *Conn) Send(ctx context.Context, method, path string, body []byte) error {
	b := c.buffer[:0]
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = append(b, c.header...)
	if body != nil {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	b = append(b, body...)
	c.buffer = b
	c.deadline(ctx)
	_, err := c.Write(b)
	return err
}

// Receive reads the answer to the last Send.
func (c *Conn) Receive(ctx context.Context, method string) (answer Answer, keep bool, err error) {
	c.deadline(ctx)
	response, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return Answer{}, false, err
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, false, err
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Body: data}, !response.Close, nil
}

func (c *Conn) deadline(ctx context.Context) {
	deadline, _ := ctx.Deadline() // the zero time is none
	_ = c.SetDeadline(deadline)
}

// alive reports whether the server has neither closed an idle connection nor sent something on it.
func (c *Conn) alive() bool {
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	_ = c.SetDeadline(time.Time{})
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && quiet
}
