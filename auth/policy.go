package auth

import (
	"strings"
	"unicode"
)

// Names of the policies that are always there.
const (
	// PolicyRoot allows everything. It has no text and cannot be changed.
	PolicyRoot = "root"
	// PolicyDefault is given to every token unless its maker says otherwise. It can be changed, but not deleted.
	PolicyDefault = "default"
)

// Limits of policies (P12).
const (
	maxPolicyText = 128 << 10 // bytes
	maxPolicyName = 128       // bytes
	maxPolicies   = 128       // of one token
)

// defaultText is the policy "default" until it is changed: what a token may do with itself.
const defaultText = `# Tokens can look themselves up, renew themselves and give themselves up.
path "auth/token/lookup-self" {
    capabilities = ["read"]
}
path "auth/token/renew-self" {
    capabilities = ["update"]
}
path "auth/token/revoke-self" {
    capabilities = ["update"]
}

# They can ask what they may do.
path "sys/capabilities-self" {
    capabilities = ["update"]
}
`

// capability is a set of what a policy can allow.
type capability uint16

const (
	canDeny capability = 1 << iota
	canCreate
	canRead
	canUpdate
	canPatch
	canDelete
	canList
	canSudo
)

// capabilityNames has them in the order of their names, in which they are shown.
var capabilityNames = []struct {
	name string
	bit  capability
}{
	{"create", canCreate}, {"delete", canDelete}, {"deny", canDeny}, {"list", canList},
	{"patch", canPatch}, {"read", canRead}, {"sudo", canSudo}, {"update", canUpdate},
}

// coarse is the older way of saying what is allowed.
var coarse = map[string]capability{
	"deny":  canDeny,
	"read":  canRead | canList,
	"write": canCreate | canRead | canUpdate | canDelete | canList,
	"sudo":  canCreate | canRead | canUpdate | canDelete | canList | canSudo,
}

// rule is what a policy says of one path.
type rule struct {
	path  string // as written, without a leading "/"
	allow capability
}

// parsePolicy reads a policy's rules, or returns an *InvalidError that names the line.
func parsePolicy(text string) ([]rule, error) {
	if len(text) > maxPolicyText {
		return nil, invalidf("the policy has %d bytes, the limit is %d: split it into several", len(text), maxPolicyText)
	}
	items, err := parseTree(text)
	if err != nil {
		return nil, err
	}
	var rules []rule
	for _, it := range items {
		switch {
		case it.keys[0] == "name" && len(it.keys) == 1:
			continue // the name is in the request
		case it.keys[0] != "path":
			return nil, invalidf("line %d: invalid key %q: a policy consists of path \"…\" { … }", it.line, it.keys[0])
		}
		more, err := pathRules(it)
		if err != nil {
			return nil, err
		}
		rules = append(rules, more...)
	}
	return rules, nil
}

// pathRules reads path "x" { … }, or path = { "x" = { … } } as JSON has it, where each object may be a list of objects.
func pathRules(it item) ([]rule, error) {
	switch {
	case len(it.keys) > 2:
		return nil, invalidf("line %d: path takes one name", it.line)
	case it.value.kind == kindList:
		var rules []rule
		for _, v := range it.value.list {
			more, err := pathRules(item{keys: it.keys, value: v, line: v.line})
			if err != nil {
				return nil, err
			}
			rules = append(rules, more...)
		}
		return rules, nil
	case it.value.kind != kindObject:
		return nil, invalidf("line %d: path needs a name and { … }", it.line)
	case len(it.keys) == 2:
		r, err := newRule(it.keys[1], it)
		return []rule{r}, err
	}
	var rules []rule
	for _, inner := range it.value.object {
		if len(inner.keys) != 1 {
			return nil, invalidf("line %d: one path is needed here", inner.line)
		}
		more, err := pathRules(item{keys: []string{"path", inner.keys[0]}, value: inner.value, line: inner.line})
		if err != nil {
			return nil, err
		}
		rules = append(rules, more...)
	}
	return rules, nil
}

func newRule(path string, it item) (rule, error) {
	r := rule{path: strings.TrimPrefix(path, "/")}
	switch {
	case strings.Contains(r.path, "+*"):
		return r, invalidf("line %d: path %q: \"+*\" is not allowed: \"+\" stands for one segment, \"*\" at the end for all that follows", it.line, path)
	case strings.Contains(r.path, "{{"):
		return r, invalidf("line %d: path %q: templates are not supported: write the path out", it.line, path)
	}
	for _, field := range it.value.object {
		if len(field.keys) != 1 {
			return r, invalidf("line %d: path %q: %q has more than one name", field.line, path, field.keys[0])
		}
		more, err := fieldOf(field)
		if err != nil {
			return r, invalidf("line %d: path %q: %v", field.line, path, err)
		}
		r.allow |= more
	}
	if r.allow&canDeny != 0 {
		r.allow = canDeny // it takes everything else away
	}
	return r, nil
}

// fieldOf reads one field of a path's rule.
func fieldOf(field item) (capability, error) {
	switch name := field.keys[0]; name {
	case "comment":
		return 0, nil
	case "policy":
		if allow, ok := coarse[field.value.text]; ok && field.value.kind == kindText {
			return allow, nil
		}
		return 0, invalidf("invalid policy %q: use capabilities = [\"read\", …]", field.value.text)
	case "capabilities":
		return capabilitiesOf(field.value)
	case "allowed_parameters", "denied_parameters", "required_parameters", "min_wrapping_ttl", "max_wrapping_ttl",
		"mfa_methods", "control_group", "pagination_limit", "expiration", "list_scan_response_keys_filter_path":
		return 0, invalidf("%s is not supported: without it the rule would allow more than it says, so that it is not taken", name)
	default:
		return 0, invalidf("invalid key %q: use capabilities = [\"read\", …]", name)
	}
}

func capabilitiesOf(v value) (capability, error) {
	if v.kind != kindList {
		return 0, invalidf("capabilities is a list: [\"read\", …]")
	}
	var all capability
next:
	for _, c := range v.list {
		for _, known := range capabilityNames {
			if c.kind == kindText && c.text == known.name {
				all |= known.bit
				continue next
			}
		}
		return 0, invalidf("invalid capability %q: they are create, read, update, patch, delete, list, sudo and deny", c.text)
	}
	return all, nil
}

// policyName gives a policy's name as it is stored: without spaces around it, in lower case.
func policyName(name string) (string, error) {
	name = strings.ToLower(strings.TrimSpace(name))
	switch {
	case name == "":
		return "", invalidf("the name of a policy is missing")
	case len(name) > maxPolicyName:
		return "", invalidf("the name of a policy has %d bytes, the limit is %d", len(name), maxPolicyName)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar || r == ',' }):
		return "", invalidf("the name of a policy %q has a comma or a character that cannot be printed", name)
	}
	return name, nil
}
