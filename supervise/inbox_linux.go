package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// inbox is what the node has said to its guardian, as far as it has come. Two look into the socket: a goroutine that waits for the node to
// say something, and the guardian's own, which must know before it obeys its timer.
type inbox struct {
	raw  syscall.RawConn
	news chan struct{} // something has come, or the node is gone

	mu   sync.Mutex
	buf  []byte
	part []byte // of a message, a line of JSON, that has not come whole
	come []message
	gone bool
}

func newInbox(conn net.Conn) (*inbox, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("the node's socket has no descriptor")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("the node's socket: %w", err)
	}
	return &inbox{raw: raw, news: make(chan struct{}), buf: make([]byte, 16<<10)}, nil
}

// wait brings the news, until the node is gone. Nothing more is taken from the socket while the last news has not been looked at.
func (b *inbox) wait() {
	for gone := false; !gone; b.news <- struct{}{} {
		err := b.raw.Read(func(fd uintptr) (some bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			some = b.draw(int(fd))
			return some
		})
		b.mu.Lock()
		b.gone = b.gone || err != nil
		gone = b.gone
		b.mu.Unlock()
	}
}

// take returns all that has been said by now, and whether the node is gone: then nothing follows.
func (b *inbox) take() (come []message, gone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.raw.Control(func(fd uintptr) { b.draw(int(fd)) }); err != nil {
		b.gone = true
	}
	come, b.come = b.come, nil
	return come, b.gone
}

// draw takes what is in the socket, without waiting; false if there is nothing. Under mu.
func (b *inbox) draw(fd int) (some bool) {
	for !b.gone {
		n, err := unix.Read(fd, b.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return some
		case err != nil || n == 0:
			b.gone = true // closed: the other side has ended
			return true
		}
		some = true
		b.split(b.buf[:n])
	}
	return true
}

func (b *inbox) split(p []byte) {
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			b.part = append(b.part, p...)
			return
		}
		var m message
		if json.Unmarshal(append(b.part, p[:end]...), &m) != nil {
			b.gone = true // nobody who talks like this is the node
			return
		}
		b.come, b.part, p = append(b.come, m), nil, p[end+1:]
	}
}
