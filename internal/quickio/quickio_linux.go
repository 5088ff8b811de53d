package quickio

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Socket reads and writes a connection. It may be used by one reader and one writer at a time, as a connection's stream; others wait.
type Socket struct {
	conn    net.Conn
	raw     syscall.RawConn
	in, out way
}

// way is one direction.
type way struct {
	mu  sync.Mutex
	p   []byte // what is still to be read into, or to be written
	n   int
	err syscall.Errno
	try func(fd uintptr) bool // as RawConn wants it: false if it must wait. Made once
}

// most is how much is copied by one call: some ten microseconds' worth, in which the thread does nothing else.
const most = 64 << 10

// Of returns the socket of a connection; nil if it has none.
func Of(conn net.Conn) *Socket {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &Socket{conn: conn, raw: raw}
	s.in.try, s.out.try = s.in.read, s.out.write
	return s
}

// Read is the connection's.
func (s *Socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w := &s.in
	w.mu.Lock()
	defer w.mu.Unlock()
	w.p, w.n, w.err = p, 0, 0
	err := s.raw.Read(w.try)
	w.p = nil
	switch {
	case err != nil:
		return 0, err
	case w.err != 0:
		return 0, s.failed("read", w.err)
	case w.n == 0:
		return 0, io.EOF
	}
	return w.n, nil
}

// Write is the connection's.
func (s *Socket) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w := &s.out
	w.mu.Lock()
	defer w.mu.Unlock()
	w.p, w.n, w.err = p, 0, 0
	err := s.raw.Write(w.try)
	w.p = nil
	if err == nil && w.err != 0 {
		err = s.failed("write", w.err)
	}
	return w.n, err
}

func (s *Socket) failed(call string, err syscall.Errno) error {
	return &net.OpError{Op: call, Net: s.conn.LocalAddr().Network(), Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: os.NewSyscallError(call, err)}
}

func (w *way) read(fd uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&w.p[0])), uintptr(min(len(w.p), most)))
		switch err {
		case 0:
			afterRead()
			w.n = int(n)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			w.err = err
			return true
		}
	}
}

func (w *way) write(fd uintptr) bool {
	beforeWrite()
	for len(w.p) > 0 {
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&w.p[0])), uintptr(min(len(w.p), most)))
		switch err {
		case 0:
			w.n += int(n)
			w.p = w.p[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			w.err = err
			return true
		}
	}
	return true
}
