//go:build !(linux || darwin || freebsd || openbsd || netbsd || dragonfly)

package raft

import (
	"fmt"
	"os"
)

// lockDir marks the directory; on this system nothing keeps a second process out but the state's own lock.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	return f, nil
}
