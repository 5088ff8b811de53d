package auth

import (
	"cmp"
	"slices"
	"strings"
)

// acl is what a set of policies allows together.
type acl struct {
	root     bool
	exact    map[string]capability
	prefixes map[string]capability // rules that end in "*", without it
	lengths  []int                 // of the prefixes, longest first
	patterns []pattern             // rules with "+", those that win first
}

// pattern is a rule with segments that are "+".
type pattern struct {
	rank
	segments []string // without the glob
	allow    capability
}

// rank is what decides between two rules that match one path, as Vault documents it.
type rank struct {
	first     int    // where the first "+" or "*" is: later wins
	glob      bool   // ends in "*": loses
	wildcards int    // segments "+": fewer win
	text      string // without the glob: the longer wins, then the greater
}

// compare is positive if a wins over b.
func (a rank) compare(b rank) int {
	return cmp.Or(
		cmp.Compare(a.first, b.first),
		compareBool(b.glob, a.glob),
		cmp.Compare(b.wildcards, a.wildcards),
		cmp.Compare(len(a.text), len(b.text)),
		cmp.Compare(a.text, b.text),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// newACL joins the rules of policies. The same path in several of them allows what any of them does, unless one denies it.
func newACL(rules []rule) *acl {
	a := &acl{exact: map[string]capability{}, prefixes: map[string]capability{}}
	patterns := map[string]capability{}
	for _, r := range rules {
		switch glob, isPrefix := strings.CutSuffix(r.path, "*"); {
		case r.path == "+", strings.HasPrefix(r.path, "+/"), strings.Contains(r.path, "/+"):
			join(patterns, r.path, r.allow)
		case isPrefix:
			join(a.prefixes, glob, r.allow)
		default:
			join(a.exact, r.path, r.allow)
		}
	}
	for prefix := range a.prefixes {
		if !slices.Contains(a.lengths, len(prefix)) {
			a.lengths = append(a.lengths, len(prefix))
		}
	}
	slices.SortFunc(a.lengths, func(x, y int) int { return y - x })
	for path, allow := range patterns {
		a.patterns = append(a.patterns, newPattern(path, allow))
	}
	slices.SortFunc(a.patterns, func(x, y pattern) int { return y.compare(x.rank) })
	return a
}

func join(rules map[string]capability, path string, allow capability) {
	if allow |= rules[path]; allow&canDeny != 0 {
		allow = canDeny
	}
	rules[path] = allow
}

func newPattern(path string, allow capability) pattern {
	text, glob := strings.CutSuffix(path, "*")
	p := pattern{rank: rank{first: strings.IndexByte(path, '+'), glob: glob, text: text}, segments: strings.Split(text, "/"), allow: allow}
	for _, s := range p.segments {
		if s == "+" {
			p.wildcards++
		}
	}
	return p
}

// matches reports whether the pattern stands for path.
func (p *pattern) matches(path string) bool {
	last := len(p.segments) - 1
	for i, want := range p.segments {
		segment, rest, more := strings.Cut(path, "/")
		switch {
		case i == last && p.glob && want != "+":
			return strings.HasPrefix(segment, want)
		case want != "+" && want != segment, i < last && !more:
			return false
		case i == last:
			return !more || p.glob
		}
		path = rest
	}
	return false
}

// allowed gives what may be done at a path. Lists are of folders: they are also allowed by a rule for the path without
// the "/" at its end.
func (a *acl) allowed(path string, list bool) capability {
	path = strings.TrimLeft(path, "/")
	bare := strings.TrimSuffix(path, "/")
	if allow, ok := a.exact[path]; ok {
		return allow
	}
	if list {
		if allow, ok := a.exact[bare]; ok {
			return allow
		}
		if allow, ok := a.matched(bare); ok {
			return allow
		}
	}
	allow, _ := a.matched(path)
	return allow
}

// matched finds the rule with "*" or "+" that wins.
func (a *acl) matched(path string) (capability, bool) {
	prefix, allow, found := a.longestPrefix(path)
	for i := range a.patterns {
		p := &a.patterns[i]
		if !p.matches(path) {
			continue
		}
		if found && p.compare(rank{first: len(prefix), glob: true, text: prefix}) < 0 {
			break
		}
		return p.allow, true
	}
	return allow, found
}

func (a *acl) longestPrefix(path string) (string, capability, bool) {
	for _, n := range a.lengths {
		if n > len(path) {
			continue
		}
		if allow, ok := a.prefixes[path[:n]]; ok {
			return path[:n], allow, true
		}
	}
	return "", 0, false
}

// capabilities names what may be done at a path, in order.
func (a *acl) capabilities(path string) []string {
	if a.root {
		return []string{PolicyRoot}
	}
	allow := a.allowed(path, true)
	if allow&canDeny != 0 || allow == 0 {
		return []string{"deny"}
	}
	var names []string
	for _, c := range capabilityNames {
		if allow&c.bit != 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// sudo reports whether the power of root is given at a path.
func (a *acl) sudo(path string) bool { return a.root || a.allowed(path, false)&canSudo != 0 }
