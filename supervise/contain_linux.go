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
	if err := try(container{kind: ContainNamespace}.cloneAttr()); err == nil {
		all = append(all, container{kind: ContainNamespace})
	} else {
		refused = append(refused, fmt.Sprintf("a PID namespace: %v", err))
	}
	base, err := cgroupBase()
	if err == nil {
		err = probeCgroup(base)
	}
	if err == nil {
		all = append(all, container{kind: ContainCgroup, base: base})
	} else {
		refused = append(refused, fmt.Sprintf("a cgroup: %v", err))
	}
	// Not where the node has rights over the host: a user namespace would take them from the command.
	if noCapabilities() {
		if err := try(container{kind: ContainNamespace, user: true}.cloneAttr()); err == nil {
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
// survive the guardian for long enough to end its tree.
func (c container) cloneAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if c.kind != ContainNamespace {
		return attr
	}
	attr.Pdeathsig = syscall.SIGKILL
	attr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
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
	dir, err := newCgroup(base, 0)
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		return fmt.Errorf("this kernel has no cgroup.kill: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return try(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())})
}

// newCgroup makes the cgroup of one tree. What an earlier guardian of the same number left behind is empty, and taken over.
func newCgroup(base string, id uint64) (string, error) {
	dir := filepath.Join(base, "locum-"+strconv.Itoa(os.Getpid())+"-"+strconv.FormatUint(id, 10))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}

// killCgroup kills all that is in it, at once.
func killCgroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
}
