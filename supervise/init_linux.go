package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tender is the init of one tree: it starts the command, collects the dead, and leaves nothing behind.
type tender struct {
	link   *link
	ns     bool // this is process 1 of a namespace
	main   int  // the command's process
	over   bool // it has ended
	status syscall.WaitStatus
	left   int
	cause  string
}

// runInit returns when nothing of the tree is left.
func runInit() int {
	l, err := openLink(controlFD, "init")
	if err != nil {
		complain(os.Stderr, "%v", err)
		return 1
	}
	deaf()
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	messages := make(chan message)
	go func() {
		defer close(messages)
		l.receive(func(m message) { messages <- m })
	}()
	first, ok := <-messages
	if !ok || first.Op != opStart || first.Command == nil {
		return 1
	}
	t := &tender{link: l, ns: os.Getpid() == 1}
	if t.ns {
		if !first.Command.Host {
			ownProc()
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		_ = l.send(message{Op: opFailed, Error: fmt.Sprintf("subreaper: %v", err)})
		return 1
	}
	if t.main, err = spawn(*first.Command, first.Contained); err != nil {
		_ = l.send(message{Op: opFailed, Error: err.Error()}) // a guardian that is gone needs no answer
		return 0
	}
	_ = l.send(message{Op: opStarted, PID: t.main})
	for !t.over {
		select {
		case <-dead:
			t.reap()
		case m, ok := <-messages:
			t.told(m, ok)
		}
	}
	t.sweep()
	_ = l.send(message{Op: opExited, Exit: t.exit()})
	return 0
}

func (t *tender) told(m message, ok bool) {
	switch {
	case !ok: // the guardian is dead
		t.over, t.cause = true, causeGuardian
	case m.Op == opKill:
		t.over, t.cause = true, causeAsked
	case m.Op == opSignal:
		_ = syscall.Kill(t.main, m.Signal) // it may have ended just now
	}
}

// reap collects those that have ended.
func (t *tender) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || pid <= 0:
			return
		case pid == t.main:
			t.over, t.status = true, status
		}
	}
}

// sweep kills until no child is left. Whoever loses its parent becomes a child of this process: the kernel leaves nobody out.
func (t *tender) sweep() {
	for {
		if t.ns {
			_ = syscall.Kill(-1, syscall.SIGKILL) // all of the namespace but this process
		} else {
			for _, pid := range children() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		var status syscall.WaitStatus
		flags := syscall.WNOHANG
		if t.ns {
			flags = 0
		}
		pid, err := syscall.Wait4(-1, &status, flags, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD: none is left
			return
		case pid == 0:
			time.Sleep(time.Millisecond)
		case pid == t.main:
			t.status = status
		case status.Signaled() && status.Signal() == syscall.SIGKILL:
			t.left++
		}
	}
}

func (t *tender) exit() *Exit {
	e := &Exit{Left: t.left, Cause: t.cause}
	if t.status.Signaled() {
		e.Signal = t.status.Signal()
	} else {
		e.Code = t.status.ExitStatus()
	}
	if t.cause != "" {
		e.Left = 0 // they were meant
	}
	return e
}

// ownProc shows the namespace its own processes in /proc. Where that is not granted, /proc goes on showing the host's.
func ownProc() {
	if unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") == nil {
		_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
}

// spawn starts a command as a child of this process.
func spawn(c Command, cgroup string) (pid int, err error) {
	path, err := lookPath(c)
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{Dir: c.Dir, Env: c.Env, Files: []uintptr{null.Fd(), 1, 2}}
	if c.Quiet {
		attr.Files = []uintptr{null.Fd(), null.Fd(), null.Fd()}
	}
	attr.Sys = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.User != "" || c.Group != "" {
		if attr.Sys.Credential, err = credential(c.User, c.Group); err != nil {
			return 0, err
		}
	}
	if strings.HasPrefix(cgroup, "/") {
		dir, err := os.Open(cgroup)
		if err != nil {
			return 0, err
		}
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	pid, err = syscall.ForkExec(path, c.Args, attr)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.Args[0], err)
	}
	return pid, nil
}

// lookPath finds the program: by the command's own PATH, and a relative path from its working directory.
func lookPath(c Command) (string, error) {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return "", errors.New("no program to run")
	}
	name := c.Args[0]
	if strings.Contains(name, "/") {
		return name, nil // the child changes directory before it looks
	}
	for _, v := range c.Env {
		dirs, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(dirs) {
			if dir == "" || !filepath.IsAbs(dir) {
				continue
			}
			full := filepath.Join(dir, name)
			if info, err := os.Stat(full); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
				return full, nil
			}
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// credential is who the command runs as. A user's own groups come with it unless a group is named.
func credential(userName, groupName string) (*syscall.Credential, error) {
	cred := &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid()), NoSetGroups: os.Geteuid() != 0}
	if userName != "" {
		u, err := user.Lookup(userName)
		if err != nil {
			u, err = user.LookupId(userName)
		}
		if err != nil {
			id, convErr := strconv.ParseUint(userName, 10, 32)
			if convErr != nil {
				return nil, fmt.Errorf("user %s: %w", userName, err)
			}
			u = &user.User{Uid: userName, Gid: strconv.FormatUint(id, 10)}
		}
		uid, gid := number(u.Uid), number(u.Gid)
		cred.Uid, cred.Gid = uid, gid
		if ids, err := u.GroupIds(); err == nil && u.Username != "" {
			for _, id := range ids {
				cred.Groups = append(cred.Groups, number(id))
			}
		}
	}
	if groupName != "" {
		g, err := user.LookupGroup(groupName)
		if err != nil {
			g, err = user.LookupGroupId(groupName)
		}
		switch {
		case err == nil:
			cred.Gid = number(g.Gid)
		case strings.Trim(groupName, "0123456789") == "":
			cred.Gid = number(groupName)
		default:
			return nil, fmt.Errorf("group %s: %w", groupName, err)
		}
	}
	return cred, nil
}

func number(id string) uint32 {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return ^uint32(0) // nobody's: the kernel refuses it
	}
	return uint32(n)
}
