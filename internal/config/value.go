package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as a string with a unit.
type Size int64

// The units that a size may have. "B" comes last, as the end of all others.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// ParseSize reads a size such as "64MiB", "1.5GiB" or "0".
func ParseSize(text string) (Size, error) {
	if text == "0" {
		return 0, nil
	}
	for _, unit := range sizeUnits {
		number, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		bytes := n * float64(unit.bytes)
		if err != nil || n < 0 || math.IsNaN(n) || bytes >= math.MaxInt64 {
			break
		}
		return Size(bytes), nil
	}
	return 0, fmt.Errorf(`size %q: write a number with a unit, such as "64MiB" (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)`, text)
}

// String writes the size with the largest unit that divides it.
func (s Size) String() string {
	if s == 0 {
		return "0"
	}
	for i := 3; i >= 0; i-- {
		if unit := sizeUnits[i]; int64(s)%unit.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(s)/unit.bytes, unit.suffix)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// parseDuration reads a duration such as "1m30s"; "0" needs no unit. None may be negative.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`duration %q: write a number with a unit, such as "15s" (ms, s, m, h)`, text)
	}
	return d, nil
}

// OneOrMore is a list of strings; one alone may be written without brackets.
type OneOrMore []string

// Performance is the factor that scales all raft times.
type Performance float64

// ParsePerformance reads "lan", "wan" or a number between 0.1 and 100.
func ParsePerformance(text string) (Performance, error) {
	switch text {
	case "lan":
		return 1, nil
	case "wan":
		return 5, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0.1 && n <= 100) {
		return 0, fmt.Errorf(`performance %q: write "lan", "wan", or a number between 0.1 and 100`, text)
	}
	return Performance(n), nil
}

// String writes the names where there are some.
func (p Performance) String() string {
	switch p {
	case 1:
		return "lan"
	case 5:
		return "wan"
	}
	return strconv.FormatFloat(float64(p), 'g', -1, 64)
}
