//go:build unix

package file

import "syscall"

// errFull is what the operating system says of a full disk.
var errFull error = syscall.ENOSPC
