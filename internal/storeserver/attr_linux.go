package storeserver

import (
	"os"
	"syscall"
)

// procAttr makes a child the leader of a process group, which the kernel kills when this program ends.
func procAttr(user string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if user == "" || os.Geteuid() != 0 {
		return attr, nil
	}
	cred, err := credential(user)
	attr.Credential = cred
	return attr, err
}
