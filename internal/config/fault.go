package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	Where string // "node.hcl:12", "environment LOCUM_API_ADDR", or "" where nothing was written at all
	What  string // what is wrong, beginning with the setting's name
	Fix   string // what to write instead; may be ""
}

func (f Fault) String() string {
	var b strings.Builder
	if f.Where != "" {
		b.WriteString(f.Where + ": ")
	}
	b.WriteString(f.What)
	if f.Fix != "" {
		b.WriteString("; " + f.Fix)
	}
	return b.String()
}

// Faults are all that is wrong with a configuration, in one error: a line each.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// err is nil for no faults, so that an error comparison with nil is right. It puts them in the order of the lines.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	files := map[string]int{} // in the order of their first fault
	for _, one := range f {
		if file, _ := one.place(); files[file] == 0 {
			files[file] = len(files) + 1
		}
	}
	slices.SortStableFunc(f, func(a, b Fault) int {
		fileA, lineA := a.place()
		fileB, lineB := b.place()
		return cmp.Or(files[fileA]-files[fileB], lineA-lineB)
	})
	return f
}

// place splits Where into file and line.
func (f Fault) place() (file string, line int) {
	cut := strings.LastIndexByte(f.Where, ':')
	if cut < 0 {
		return f.Where, 0
	}
	line, _ = strconv.Atoi(f.Where[cut+1:])
	return f.Where[:cut], line
}

// positions knows where each setting was written, by its path: "storage.path", "listener[1].address".
type positions map[string]string

func at(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }

// of returns where the setting was written, or else the block that it belongs in.
func (p positions) of(path string) string {
	for {
		if where, ok := p[path]; ok {
			return where
		}
		cut := strings.LastIndexByte(path, '.')
		if cut < 0 {
			return ""
		}
		path = path[:cut]
	}
}
