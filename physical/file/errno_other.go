//go:build !unix

package file

import "errors"

// errFull is what no error is: here a full disk is named by the operating system's own text alone.
var errFull = errors.New("disk full")
