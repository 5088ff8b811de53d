package footprint

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const example = `00400000-00e00000 r-xp 00000000 fe:00 131 /usr/bin/locum
Size:              10240 kB
Anonymous:             0 kB
00e00000-01700000 r--p 00a00000 fe:00 131 /usr/bin/locum
Anonymous:             0 kB
01700000-01800000 r--p 01300000 fe:00 131 /usr/bin/locum
Anonymous:            64 kB
01800000-01900000 rw-p 01400000 fe:00 131 /usr/bin/locum
Anonymous:             0 kB
01900000-01a00000 r--s 00000000 fe:00 131 /usr/bin/locum
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0 
Anonymous:          4096 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:00 140 /usr/lib/x86_64-linux-gnu/libc.so.6
Anonymous:             0 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
Anonymous:            12 kB
`

// What was written to, may be written to, is shared, or belongs to another file stays mapped.
func TestCleanMappings(t *testing.T) {
	got := cleanMappings(strings.NewReader(example), "/usr/bin/locum")
	want := []mapping{{0x400000, 0xe00000}, {0xe00000, 0x1700000}}
	if !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// The process is smaller afterwards, and goes on.
func TestTrim(t *testing.T) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip("this system has no /proc: ", err)
	}
	defer f.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if len(cleanMappings(f, exe)) == 0 {
		t.Fatal("no mapping of this program is found")
	}
	before := resident(t)
	unmapProgram()
	after := resident(t)
	t.Logf("pages of files: %d kB before, %d kB after", before, after)
	if after >= before {
		t.Errorf("%d kB of files are mapped after, %d before", after, before)
	}
}

// resident returns how much of files is in this process's memory.
func resident(t *testing.T) (kB int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			if kB, err = strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB"))); err != nil {
				t.Fatal(err)
			}
			return kB
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}
