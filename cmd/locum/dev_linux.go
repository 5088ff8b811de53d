package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// lockName is the file that tells a directory in use from one that was left behind.
const lockName = "lock"

// childAttr lets a child end when its parent is killed, and keeps the terminal's Ctrl-C from it: the parent ends it in order.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// lockDir takes the directory for this process; the kernel gives it back when the process ends, however it ends.
func lockDir(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
