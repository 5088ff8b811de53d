//go:build !linux

package storeserver

import "syscall"

// procAttr makes a child the leader of a process group. Only Linux can also end it with this program.
func procAttr(string) (*syscall.SysProcAttr, error) { return &syscall.SysProcAttr{Setpgid: true}, nil }
