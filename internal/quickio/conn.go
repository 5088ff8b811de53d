package quickio

import "net"

// Conn returns a connection whose reads and writes are those of its [Socket]; one that has none, as it is.
func Conn(conn net.Conn) net.Conn {
	if s := Of(conn); s != nil {
		return quick{conn, s}
	}
	return conn
}

type quick struct {
	net.Conn
	s *Socket
}

func (q quick) Read(p []byte) (int, error)  { return q.s.Read(p) }
func (q quick) Write(p []byte) (int, error) { return q.s.Write(p) }
