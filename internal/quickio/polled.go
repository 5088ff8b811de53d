package quickio

import "net"

// ErrAgain: there is nothing to be read now. It is a temporary time-out to those who ask, so a tls.Conn that met it can be read on.
var ErrAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "nothing to be read yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }
