package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// describeMachine says what the numbers were measured on and with.
func describeMachine(dir string) []string {
	lines := []string{
		fmt.Sprintf("%s, %d cores, shared by servers and load generator; %s of memory; all nodes on this machine", processor(), runtime.NumCPU(), field("/proc/meminfo", "MemTotal")),
		"kernel " + output("uname", "-sr") + ", " + runtime.Version() + ", loopback",
		"Locum " + output("git", "-C", cluster.Root(), "describe", "--always", "--tags", "--dirty") + ", " + time.Now().UTC().Format(time.DateOnly),
		"disk: fdatasync of 1 KiB " + fsyncs(dir),
	}
	if v := output("etcd", "--version"); v != "" {
		lines = append(lines, "peer: "+strings.TrimSpace(strings.SplitN(v, "\n", 2)[0]))
	}
	return lines
}

func processor() string { return field("/proc/cpuinfo", "model name") }

func field(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// fsyncs measures what every acknowledged write has to wait for.
func fsyncs(dir string) string {
	file, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	defer os.Remove(file.Name())
	var all Rounds[time.Duration]
	for range 500 {
		start := time.Now()
		if _, err := file.Write(make([]byte, 1024)); err != nil {
			return err.Error()
		}
		if err := syscall.Fdatasync(int(file.Fd())); err != nil {
			return err.Error()
		}
		all = append(all, time.Since(start))
	}
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("p50 %s, p99 %s", micros(all.Median()), micros(sorted[len(sorted)*99/100]))
}
