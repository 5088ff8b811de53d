package footprint

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram advises the kernel that the program's pages are not needed at present, and to map those that are one by one.
func unmapProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for _, m := range cleanMappings(f, exe) {
		// Where the kernel keeps the file in huge pages, a touch of one byte maps 2 MiB: not here. Without huge pages the advice is refused.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_NOHUGEPAGE)
		// Private, read-only and as in the file: what is dropped here is read from there again.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// cleanMappings returns the mappings of exe that cannot be written to and of which no page differs from the file, from a text in
// the form of /proc/PID/smaps. A page that was relocated and then made read-only differs: dropping it would lose the relocation.
func cleanMappings(smaps io.Reader, exe string) []mapping {
	var clean []mapping
	var current *mapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		if m, perms, path, ok := parseHeader(line); ok {
			current = nil
			if path == exe && perms[1] == '-' && perms[3] == 'p' {
				current = &m
			}
			continue
		}
		if name, value, _ := strings.Cut(line, ":"); current != nil && name == "Anonymous" {
			if strings.TrimSpace(value) == "0 kB" {
				clean = append(clean, *current)
			}
			current = nil
		}
	}
	return clean
}

// parseHeader reads the line with which a mapping begins: "from-to rwxp offset device inode path".
func parseHeader(line string) (m mapping, perms, path string, ok bool) {
	var offset, device, inode string
	n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %s %s", &m.from, &m.to, &perms, &offset, &device, &inode, &path)
	return m, perms, path, n >= 6 && len(perms) == 4
}
