//go:build !linux

package quickio

import "net"

// Socket is not known here.
type Socket struct{ net.Conn }

// Of returns nil: the connection is to be used as it is.
func Of(net.Conn) *Socket { return nil }

// Polled is not known here.
type Polled struct{ net.Conn }

// Poll returns conn as it is.
func Poll(conn net.Conn) net.Conn { return conn }

// PolledOf returns nil: the connection is to be read as it is.
func PolledOf(net.Conn) *Polled { return nil }

// NoWait is never called.
func (*Polled) NoWait() {}

// Wait is never called.
func (*Polled) Wait() error { return net.ErrClosed }

// Yield does nothing.
func Yield() {}
