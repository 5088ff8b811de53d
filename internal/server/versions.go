package server

import (
	"strconv"
	"strings"
)

// newer reports whether version a is newer than b: "v1.10.0" than "v1.9.3", and "v1.9.3-5-gabc", five commits on, than
// "v1.9.3". Versions that are no numbers cannot be compared, and then neither is newer.
func newer(a, b string) bool {
	as, ok := versionNumbers(a)
	bs, also := versionNumbers(b)
	if !ok || !also {
		return false
	}
	for i := range as {
		if as[i] != bs[i] {
			return as[i] > bs[i]
		}
	}
	return false
}

// versionNumbers are major, minor, patch and the commits since.
func versionNumbers(v string) (n [4]int, ok bool) {
	release, rest, _ := strings.Cut(strings.TrimPrefix(v, "v"), "-")
	parts := strings.Split(release, ".")
	if len(parts) > 3 {
		return n, false
	}
	for i, part := range parts {
		x, err := strconv.Atoi(part)
		if err != nil || x < 0 {
			return n, false
		}
		n[i] = x
	}
	commits, _, _ := strings.Cut(rest, "-")
	if x, err := strconv.Atoi(commits); err == nil && x > 0 {
		n[3] = x
	}
	return n, true
}

// rank is the priority of another candidate as this node sees it: one of a newer version goes first, and none of an older
// version goes before this node, so that leadership does not fall back to it in the middle of an upgrade.
func (u *unsealed) rank(c rival) int {
	mine := u.cfg.HA.Priority
	switch {
	case newer(c.Version, u.opts.Version):
		return max(c.Priority, mine+versionStep)
	case newer(u.opts.Version, c.Version):
		return min(c.Priority, mine)
	}
	return c.Priority
}

// versionStep is by how much of a priority a newer version outranks.
const versionStep = 100
