package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// container knows how this host lets trees of processes be held together.
type container struct {
	kind string // of ContainNamespace, ContainCgroup, ContainGroup
	user bool   // the namespace comes with a user namespace: for those who are not root
	base string // the cgroup below which trees get theirs
	why  string // why it is nothing better
}

// probeContainers finds out what this host grants, the best first. Each is tried for real: what a host says it can do and what
// its security modules let it do are two things.
func probeContainers() []container {
	var all []container
	var refused []string
	if err := try(container{kind: ContainNamespace}.cloneAttr(false)); err == nil {
		all = append(all, container{kind: ContainNamespace})
	} else {
		refused = append(refused, fmt.Sprintf("a PID namespace: %v", err))
	}
	base, err := cgroupBase()
	if err == nil {
		err = probeCgroup(base)
	}
	if err == nil {
		endLeftovers(base)
		all = append(all, container{kind: ContainCgroup, base: base, why: strings.Join(refused, "; ")})
	} else {
		refused = append(refused, fmt.Sprintf("a cgroup: %v", err))
	}
	// Not where the node has rights over the host: a user namespace would take them from the command.
	if noCapabilities() {
		if err := try(container{kind: ContainNamespace, user: true}.cloneAttr(false)); err == nil {
			all = append(all, container{kind: ContainNamespace, user: true})
		} else {
			refused = append(refused, fmt.Sprintf("a PID namespace in a user namespace: %v", err))
		}
	}
	return append(all, container{kind: ContainGroup, why: strings.Join(refused, "; ")})
}

// choose takes the first that fits what was asked for.
func choose(all []container, asked string) (container, error) {
	for _, c := range all {
		if asked == "" || asked == ContainAuto || asked == c.kind {
			return c, nil
		}
	}
	return container{}, fmt.Errorf("%w: %s", ErrContainment, asked)
}

// cloneAttr is how an init is started in it. The parent-death signal is for the namespace's init alone: elsewhere an init must
// survive the guardian for long enough to end its tree. With host it stays among the host's mounts.
func (c container) cloneAttr(host bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if c.kind != ContainNamespace {
		return attr
	}
	attr.Pdeathsig = syscall.SIGKILL
	attr.Cloneflags = syscall.CLONE_NEWPID
	if !host {
		attr.Cloneflags |= syscall.CLONE_NEWNS
	}
	if c.user {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// try makes a process with attr, for nothing: its command does not exist, and the error tells that it got as far as that.
func try(attr *syscall.SysProcAttr) error {
	_, err := syscall.ForkExec("/proc/self/exe/nothing", nil, &syscall.ProcAttr{Sys: attr})
	if errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

// noCapabilities reports whether this process has no right beyond its user's.
func noCapabilities() bool {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if set, ok := strings.CutPrefix(line, "CapPrm:"); ok {
			return strings.Trim(strings.TrimSpace(set), "0") == ""
		}
	}
	return false
}

// cgroupBase is this process's own cgroup (version 2) in the file system.
func cgroupBase() (string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	path := ""
	for line := range strings.Lines(string(own)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			path = rest
		}
	}
	if path == "" {
		return "", errors.New("no cgroup version 2")
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		rel, err := filepath.Rel(fields[3], path)
		if err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		return filepath.Join(fields[4], rel), nil
	}
	return "", errors.New("cgroup version 2 is not mounted")
}

// probeCgroup makes one and tries to start a process in it.
func probeCgroup(base string) error {
	dir, f, err := newCgroup(base, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(dir)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		return fmt.Errorf("this kernel has no cgroup.kill: %w", err)
	}
	return try(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())})
}

// cgroupPrefix begins the names of trees' cgroups.
const cgroupPrefix = "locum-tree-"

// newCgroup makes the cgroup of one tree, and holds on to it: while the file is open, nobody takes it for one that was left behind.
func newCgroup(base string, id uint64) (dir string, held *os.File, err error) {
	dir = filepath.Join(base, cgroupPrefix+strconv.Itoa(os.Getpid())+"-"+strconv.FormatUint(id, 10))
	for range 10 { // another guardian may just be looking whether somebody holds it
		if err = os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", nil, err
		}
		if held, err = holdCgroup(dir); err == nil {
			return dir, held, nil
		}
		time.Sleep(time.Millisecond)
	}
	return "", nil, err
}

// holdCgroup fails if somebody else holds it, or it is gone.
func holdCgroup(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		_, err = os.Stat(filepath.Join(dir, "cgroup.procs")) // removed meanwhile?
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// endLeftovers ends the trees of guardians that were killed together with their inits: nobody was left to do it then.
func endLeftovers(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, cgroupPrefix+"*")) // the pattern is well-formed
	for _, dir := range dirs {
		f, err := holdCgroup(dir)
		if err != nil {
			continue // its guardian lives
		}
		if procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(procs) > 0 {
			complain(os.Stderr, "processes that an earlier guardian could not end are killed: %s", strings.Join(strings.Fields(string(procs)), ", "))
			if err := killCgroup(dir); err != nil {
				complain(os.Stderr, "cgroup.kill: %v", err)
			}
		}
		for range 100 { // until the last of them is gone
			if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		_ = f.Close()
	}
}

// killCgroup kills all that is in it, at once.
func killCgroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
}
