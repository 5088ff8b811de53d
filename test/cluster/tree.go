package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// KillTree is a crash of the whole process tree at once, the guardian included, as when a machine loses its power: nobody is
// left to release the lock.
func (n *Node) KillTree() {
	tree := descendants(n.process.Pid())
	for _, pid := range slices.Backward(tree) { // those that watch over others first
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	n.Kill()
}

// descendants lists the children of a process, and theirs.
func descendants(pid int) []int {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var all []int
	for _, name := range tasks {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}
