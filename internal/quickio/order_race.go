//go:build race && linux

package quickio

import "sync/atomic"

// writes tells the race detector, as package syscall does, that what comes before a write comes before what follows the read of it.
var writes atomic.Uint64

func beforeWrite() { writes.Add(1) }
func afterRead()   { writes.Load() }
