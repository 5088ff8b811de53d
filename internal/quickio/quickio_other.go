//go:build !linux

package quickio

import "net"

// Socket is not known here.
type Socket struct{ net.Conn }

// Of returns nil: the connection is to be used as it is.
func Of(net.Conn) *Socket { return nil }
