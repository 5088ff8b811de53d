package server

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// newer reports whether version a is newer than b: "v1.10.0" than "v1.9.3", "v1.9.3-5-gabc", five commits on, than "v1.9.3",
// and that than its pre-release "v1.9.3-rc.1". Versions that are no numbers cannot be compared, and then neither is newer.
func newer(a, b string) bool {
	as, ok := parseRelease(a)
	bs, also := parseRelease(b)
	return ok && also && as.compare(bs) > 0
}

// release is a version that can be compared.
type release struct {
	numbers [3]int   // major, minor, patch
	pre     []string // of a pre-release: "rc", "1"
	commits int      // since then, as git describe counts them
}

var commitsSince = regexp.MustCompile(`-([0-9]+)-g[0-9a-f]+$`)

// parseRelease reads a version as semver.org or git describe writes it.
func parseRelease(version string) (r release, ok bool) {
	version, _, _ = strings.Cut(version, "+") // what it was built with or for
	version, tagged := strings.CutPrefix(strings.TrimSuffix(version, "-dirty"), "v")
	if !tagged && !strings.Contains(version, ".") {
		return r, false // a commit's name may be all digits
	}
	if found := commitsSince.FindStringSubmatch(version); found != nil {
		r.commits, _ = strconv.Atoi(found[1]) // too many are as many as there can be
		version = strings.TrimSuffix(version, found[0])
	}
	numbers, pre, _ := strings.Cut(version, "-")
	if pre != "" {
		r.pre = strings.Split(pre, ".")
	}
	parts := strings.Split(numbers, ".")
	if len(parts) > len(r.numbers) {
		return r, false
	}
	for i, part := range parts {
		x, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return r, false
		}
		r.numbers[i] = int(x)
	}
	return r, true
}

func (r release) compare(o release) int {
	if c := slices.Compare(r.numbers[:], o.numbers[:]); c != 0 {
		return c
	}
	if len(r.pre) == 0 || len(o.pre) == 0 { // a pre-release comes before the release
		return cmp.Or(cmp.Compare(len(o.pre), len(r.pre)), cmp.Compare(r.commits, o.commits))
	}
	return cmp.Or(slices.CompareFunc(r.pre, o.pre, comparePre), cmp.Compare(r.commits, o.commits))
}

// comparePre compares as semver does: numbers as numbers, and before words.
func comparePre(a, b string) int {
	x, aWord := strconv.ParseUint(a, 10, 64)
	y, bWord := strconv.ParseUint(b, 10, 64)
	switch {
	case aWord == nil && bWord == nil:
		return cmp.Compare(x, y)
	case aWord == nil:
		return -1
	case bWord == nil:
		return 1
	}
	return strings.Compare(a, b)
}

// foremost is the candidate that should go first if this node is left aside, with its priority as this node should see it. In front are
// those than which no other is newer, so that leadership does not fall back to an older version in the middle of an upgrade; of these
// the priority decides. A node that is not in front itself is outranked, whatever its priority. All nodes that know the same candidates
// come to the same end. The zero value: nobody goes before this node.
func (u *unsealed) foremost(candidates []rival) rival {
	mine := rival{ID: u.id, Priority: u.cfg.HA.Priority, Version: u.opts.Version}
	all := append(slices.DeleteFunc(slices.Clone(candidates), func(c rival) bool { return c.ID == u.id }), mine)
	best := rival{}
	for _, c := range all {
		if c.ID != mine.ID && inFront(c, all) && (best.ID == "" || c.Priority > best.Priority) {
			best = c
		}
	}
	if !inFront(mine, all) {
		best.Priority = max(best.Priority, mine.Priority+versionStep)
	}
	return best
}

// inFront reports whether none of the others is of a newer version.
func inFront(c rival, others []rival) bool {
	return !slices.ContainsFunc(others, func(o rival) bool { return newer(o.Version, c.Version) })
}

// versionStep is by how much of a priority a newer version outranks.
const versionStep = 100

// successor is the node that should take over: of the candidates that could do so at once, or else of all, it is of those than which no
// other is newer the one with the highest priority, and of these the one heard from last.
func (u *unsealed) successor() string {
	candidates, best := u.members.fit(), member{}
	var rivals []rival
	for _, m := range candidates {
		rivals = append(rivals, m.rival())
	}
	for _, m := range candidates {
		switch {
		case !inFront(m.rival(), rivals):
		case best.ID == "", m.Priority > best.Priority, m.Priority == best.Priority && m.echo.After(best.echo):
			best = m
		}
	}
	return best.ID
}
