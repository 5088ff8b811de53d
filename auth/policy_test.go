package auth

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/locum-ha/locum/physical"
)

func aclOf(t testing.TB, texts ...string) *acl {
	t.Helper()
	var all []rule
	for _, text := range texts {
		rules, err := parsePolicy(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		all = append(all, rules...)
	}
	return newACL(all)
}

// The examples and rules of Vault's documentation of policies.
func TestMatching(t *testing.T) {
	for _, c := range []struct {
		policy string
		want   map[string]string // path: capabilities
	}{
		{`
			path "secret/foo" { capabilities = ["read"] }
			path "secret/bar/*" { capabilities = ["read"] }
			path "secret/zip-*" { capabilities = ["read"] }`,
			map[string]string{
				"secret/foo": "read", "secret/foobar": "deny", "secret/foo/bar": "deny", "secret/bar/zip": "read", "secret/bar/zip/zap": "read",
				"secret/bars/zip": "deny", "secret/zip-zap": "read", "secret/zip-zap/zong": "read", "secret/zip/zap": "deny", "secret/zip": "deny",
			}},
		{`
			path "secret/+/teamb" { capabilities = ["read"] }
			path "secret/dev/+/teamb" { capabilities = ["update"] }
			path "+/config" { capabilities = ["list"] }
			path "secret/apps/+/team-*" { capabilities = ["create"] }`,
			map[string]string{
				"secret/foo/teamb": "read", "secret/foo/bar/teamb": "deny", "secret/dev/x/teamb": "update", "secret/dev/teamb": "read",
				"any/config": "list", "any/more/config": "deny", "secret/apps/foo/team-a": "create", "secret/apps/foo/team-a/b": "create", "secret/apps/foo/team": "deny",
			}},
		{ // the first wildcard or glob that comes later wins
			`path "secret/*" { capabilities = ["read"] }
			path "secret/super-secret" { capabilities = ["deny"] }
			path "secret/restricted" { capabilities = ["create"] }
			path "foo/bar/+/baz" { capabilities = ["create"] }
			path "foo/+/bar/baz" { capabilities = ["update"] }
			path "x/a*" { capabilities = ["create"] }
			path "x/+" { capabilities = ["update"] }`,
			map[string]string{
				"secret/a": "read", "secret/super-secret": "deny", "secret/super-secret2": "read", "secret/restricted": "create",
				"foo/bar/bar/baz": "create", "foo/x/bar/baz": "update", "x/a": "create", "x/b": "update",
			}},
		{ // "secret/*" wins over "secret/+/+/foo/*": fewer wildcard segments
			`path "secret/*" { capabilities = ["read"] }
			path "secret/+/+/foo/*" { capabilities = ["update"] }`,
			map[string]string{"secret/a/b/foo/c": "read", "secret/a": "read"}},
		{ // one that does not end in "*" wins, then one with fewer wildcard segments
			`path "foo/+/bar" { capabilities = ["read"] }
			path "foo/+/ba*" { capabilities = ["update"] }
			path "foo/+" { capabilities = ["create"] }
			path "foo/*" { capabilities = ["delete"] }`,
			map[string]string{"foo/x/bar": "read", "foo/x/baz": "delete", "foo/x": "create", "foo/x/other": "delete"}},
		{ // the longer, then the lexicographically greater wins
			`path "foo/+/bar/ba*" { capabilities = ["read"] }
			path "foo/+/bar/b*" { capabilities = ["update"] }
			path "a/+/b" { capabilities = ["read"] }
			path "a/+/+" { capabilities = ["update"] }
			path "b/+/x/+" { capabilities = ["read"] }
			path "b/+/+/y" { capabilities = ["update"] }`,
			map[string]string{"foo/x/bar/baz": "read", "foo/x/bar/bz": "update", "a/1/b": "read", "a/1/c": "update", "b/1/x/y": "read"}},
		{ // globs in the middle are none
			`path "secret/*/x" { capabilities = ["read"] }
			path "secret/a+b" { capabilities = ["list"] }`,
			map[string]string{"secret/*/x": "read", "secret/a/x": "deny", "secret/a+b": "list", "secret/a/b": "deny"}},
		{ // the same path again: together, but "deny" takes all
			`path "a" { capabilities = ["read"] }
			path "a" { capabilities = ["list"] }
			path "b*" { capabilities = ["read", "sudo"] }
			path "b*" { capabilities = ["read", "deny"] }
			path "c" { policy = "write" }
			path "/d" { policy = "sudo" }
			path "e" { policy = "deny" }
			path "f" {}`,
			map[string]string{"a": "list read", "b": "deny", "bc": "deny", "c": "create delete list read update", "d": "create delete list read sudo update", "e": "deny", "f": "deny", "": "deny"}},
		{ // lists are of folders
			`path "secret/metadata/app" { capabilities = ["list"] }
			path "secret/metadata/+" { capabilities = ["read"] }
			path "other/" { capabilities = ["list"] }
			path "glob*" { capabilities = ["list"] }`,
			map[string]string{"secret/metadata/app/": "list", "secret/metadata/app": "list", "secret/metadata/b": "read", "other/": "list", "other": "deny", "glob/": "list", "/glob": "list"}},
		{`{"path": {"a": {"capabilities": ["read"]}, "b*": {"capabilities": ["list"], "comment": "x"}}}`, map[string]string{"a": "read", "b1": "list"}},
		{`{"path": [{"a": {"capabilities": ["read"]}}, {"a": [{"capabilities": ["list"]}, {"policy": "deny"}]}], "name": "x"}`, map[string]string{"a": "deny"}},
		{`{"path": {"a": {"capabilities": ["read"]}, "a": {"capabilities": ["deny"]}}}`, map[string]string{"a": "deny"}},
		{"path = { \"a\" = { capabilities = [\"read\",] } } // x\n# y\n/* z\n */ name = \"n\"", map[string]string{"a": "read"}},
		{`path "uni\u0041\"" { "capabilities" = [ "read" , "list" ] comment = "${x} ü" }`, map[string]string{`uniA"`: "list read"}},
		{"", map[string]string{"a": "deny"}},
		{defaultText, map[string]string{"auth/token/lookup-self": "read", "auth/token/create": "deny", "sys/capabilities-self": "update"}},
	} {
		a := aclOf(t, c.policy)
		for path, want := range c.want {
			if got := strings.Join(a.capabilities(path), " "); got != want {
				t.Errorf("%s\n%q: %q, want %q", c.policy, path, got, want)
			}
		}
	}
}

// What is wrong with a policy is said with its line, and nothing that would weaken it is passed over.
func TestPolicyFaults(t *testing.T) {
	for text, want := range map[string]string{
		"path \"a\" {\n capabilities = [\"raed\"] }":                  `line 2: path "a": invalid capability "raed": they are create, read, update, patch, delete, list, sudo and deny`,
		"\n\npath \"a\" {":                                            `line 3: a "{" is not closed`,
		`path "a" { capabilities = ["read" "list"] }`:                 "line 1: the items of a list are separated by commas",
		`path "a" { capabilities = "read" }`:                          `line 1: path "a": capabilities is a list: ["read", …]`,
		`path "a" { policy = "full" }`:                                `line 1: path "a": invalid policy "full": use capabilities = ["read", …]`,
		`path "a" { allowed_parameters = { "x" = [] } }`:              `line 1: path "a": allowed_parameters is not supported: without it the rule would allow more than it says, so that it is not taken`,
		`path "a" { denied_parameters = {} }`:                         "denied_parameters is not supported",
		`path "a" { required_parameters = ["x"] }`:                    "required_parameters is not supported",
		`path "a" { min_wrapping_ttl = 5 }`:                           "min_wrapping_ttl is not supported",
		`path "a" { capability = ["read"] }`:                          `invalid key "capability"`,
		`paths "a" { capabilities = ["read"] }`:                       `line 1: invalid key "paths"`,
		`path "a/+*" { capabilities = ["read"] }`:                     `"+*" is not allowed`,
		`path "a/{{identity.entity.id}}" { capabilities = ["read"] }`: "templates are not supported",
		`path "a" "b" { }`:                                            "line 1: path takes one name",
		`path "a" = "b"`:                                              "line 1: path needs a name and { … }",
		`path`:                                                        `line 1: "path" is followed by neither "=" nor "{"`,
		`path "a" { comment = <<EOF }`:                                "line 1: a text with << is not supported here",
		"path \"a\n\" {}":                                             "line 1: a quote is not closed on its line",
		`path "a`:                                                     "line 1: a quote is not closed",
		`path "a\q" {}`:                                               "the escape in",
		`/* x`:                                                        "line 1: a comment that begins with /* does not end",
		`{`:                                                           "line 1: the policy is not valid JSON",
		"{\"path\":\n{\"a\":1}}":                                      "line 2: path needs a name and { … }",
		`{} {}`:                                                       "something follows the JSON object",
		`{"path":{"a":{"capabilities":[1]}}}`:                         `invalid capability "1"`,
		"\xff":                                                        "the policy is not valid UTF-8 text",
		"path \"a\" { x = " + strings.Repeat("[", 50):                 "nested more than 16 deep",
		`{"path":` + strings.Repeat("[", 50):                          "nested more than 16 deep",
		strings.Repeat(" ", maxPolicyText+1):                          "the limit is 131072",
		"}":                                                           "line 1: a name is needed here",
	} {
		_, err := parsePolicy(text)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(defaultText)
	f.Add(`{"path": [{"a": {"capabilities": ["read"]}}, {"+/b*": [{"policy": "deny"}]}]}`)
	f.Add("path \"a/+/b*\" { capabilities = [\"sudo\"] } # x\n/* y */ name = \"z\\\"\"")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := parsePolicy(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		a := newACL(rules)
		for _, r := range rules[:min(len(rules), 50)] {
			path := strings.ReplaceAll(strings.TrimSuffix(r.path, "*"), "/+", "/x")
			_ = a.capabilities(path)
		}
	})
}

// Property: the winner is the one that Vault's documented order gives, whatever the order in which rules are written.
func TestMatchingProperty(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "ab", "+"})
	drawPath := func(rt *rapid.T, label string) string {
		p := strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(rt, label), "/")
		if rapid.Bool().Draw(rt, "glob") && !strings.HasSuffix(p, "+") {
			p += "*"
		}
		return p
	}
	rapid.Check(t, func(rt *rapid.T) {
		var rules []rule
		for i := range rapid.IntRange(0, 12).Draw(rt, "rules") {
			rules = append(rules, rule{drawPath(rt, fmt.Sprint("path", i)), 1 << rapid.IntRange(0, 7).Draw(rt, "allow")})
		}
		path := strings.ReplaceAll(strings.TrimSuffix(drawPath(rt, "asked"), "*"), "+", "c")
		want := reference(rules, path)
		if got := newACL(rules).allowed(path, false); got != want {
			rt.Fatalf("%q with %v: %b, want %b", path, rules, got, want)
		}
		slices.Reverse(rules)
		if got := newACL(rules).allowed(path, false); got != want {
			rt.Fatalf("reversed: %q with %v: %b, want %b", path, rules, got, want)
		}
	})
}

// reference finds the winner the slow way, in the words of the documentation.
func reference(rules []rule, path string) capability {
	var best string
	found := false
	for _, r := range rules {
		if !covers(r.path, path) {
			continue
		}
		if !found || documented(r.path, best) > 0 {
			best, found = r.path, true
		}
	}
	var allow capability
	for _, r := range rules {
		if found && r.path == best {
			allow |= r.allow
		}
	}
	if allow&canDeny != 0 {
		return canDeny
	}
	return allow
}

func covers(pattern, path string) bool {
	glob := strings.HasSuffix(pattern, "*")
	want, have := strings.Split(strings.TrimSuffix(pattern, "*"), "/"), strings.Split(path, "/")
	if len(have) < len(want) || !glob && len(have) != len(want) {
		return false
	}
	for i, w := range want {
		last := glob && i == len(want)-1
		if w != "+" && w != have[i] && (!last || !strings.HasPrefix(have[i], w)) {
			return false
		}
	}
	return true
}

// documented compares two rules that match: positive if p1 has the higher priority.
func documented(p1, p2 string) int {
	first := func(p string) int {
		if i := strings.IndexAny(p, "+*"); i >= 0 {
			return i
		}
		return 1 << 30
	}
	glob := func(p string) int { return strings.Count(p, "*") }
	return cmp.Or(
		cmp.Compare(first(p1), first(p2)),
		-cmp.Compare(glob(p1), glob(p2)),
		-cmp.Compare(strings.Count(p1, "+"), strings.Count(p2, "+")),
		cmp.Compare(len(strings.TrimSuffix(p1, "*")), len(strings.TrimSuffix(p2, "*"))),
		strings.Compare(p1, p2),
	)
}

func TestAuthorize(t *testing.T) {
	s, v, root := newStore(t)
	ctx := t.Context()
	must(t, s.SetPolicy(ctx, "p", `
		path "secret/data/new/*" { capabilities = ["create"] }
		path "secret/data/old/*" { capabilities = ["update", "patch"] }
		path "secret/data/rw/*" { capabilities = ["create", "update", "read", "delete"] }
		path "secret/metadata/*" { capabilities = ["list"] }
		path "sys/rotate" { capabilities = ["update"] }
		path "sys/seal" { capabilities = ["update", "sudo"] }`, Request{}))
	tok := create(t, s, root, Creation{Policies: []string{"p"}}).Secret
	bare := create(t, s, root, Creation{Policies: []string{"none"}, NoDefaultPolicy: true}).Secret
	there := func(yes bool) func(ctxType) (bool, error) {
		return func(ctxType) (bool, error) { return yes, nil }
	}
	never := func(ctxType) (bool, error) { t.Error("asked though it decides nothing"); return false, nil }
	for _, c := range []struct {
		need Access
		ok   bool
	}{
		{Access{Path: "secret/data/new/a", Op: Update, Exists: there(false)}, true},
		{Access{Path: "secret/data/new/a", Op: Update, Exists: there(true)}, false},
		{Access{Path: "secret/data/new/a", Op: Update}, false},
		{Access{Path: "secret/data/old/a", Op: Update, Exists: there(false)}, false},
		{Access{Path: "secret/data/old/a", Op: Update, Exists: there(true)}, true},
		{Access{Path: "secret/data/old/a", Op: Update}, true},
		{Access{Path: "secret/data/old/a", Op: Patch, Exists: never}, true},
		{Access{Path: "secret/data/rw/a", Op: Update, Exists: never}, true},
		{Access{Path: "secret/data/rw/a", Op: Read}, true},
		{Access{Path: "secret/data/rw/a", Op: Delete}, true},
		{Access{Path: "secret/data/rw/a", Op: Patch}, false},
		{Access{Path: "secret/data/none", Op: Update, Exists: never}, false},
		{Access{Path: "secret/metadata/a", Op: List}, true},
		{Access{Path: "secret/metadata", Op: List}, true},
		{Access{Path: "secret/metadata/a", Op: Read}, false},
		{Access{Path: "sys/rotate", Op: Update}, true},
		{Access{Path: "sys/rotate", Op: Update, Sudo: true}, false},
		{Access{Path: "sys/seal", Op: Update, Sudo: true}, true},
		{Access{Path: "auth/token/lookup-self", Op: Read}, true},
		{Access{Path: "x", Op: Read, Any: true}, true},
		{Access{Path: "x", Op: "odd"}, false},
	} {
		got, err := s.Authorize(ctx, tok, c.need, Request{})
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrDenied) || err == nil && got == nil {
			t.Errorf("%+v: %v", c.need, err)
		}
		if (s.Check(ctx, tok, c.need) == nil) != c.ok {
			t.Errorf("%+v: Check says otherwise", c.need)
		}
		if _, err := s.Authorize(ctx, root, c.need, Request{}); err != nil {
			t.Errorf("root, %+v: %v", c.need, err)
		}
		if _, err := s.Authorize(ctx, bare, c.need, Request{}); (err == nil) != c.need.Any {
			t.Errorf("bare, %+v: %v", c.need, err)
		}
	}
	boom := errors.New("boom")
	if _, err := s.Authorize(ctx, tok, Access{Path: "secret/data/new/a", Op: Update, Exists: func(ctxType) (bool, error) { return false, boom }}, Request{}); !errors.Is(err, boom) {
		t.Error(err)
	}
	// A policy that changes is in force at once, also on the next node.
	must(t, s.SetPolicy(ctx, "P", `path "sys/rotate" { capabilities = ["sudo", "update"] }`, Request{}))
	for _, s := range []*Store{s, again(t, v)} {
		if err := s.Check(ctx, tok, Access{Path: "sys/rotate", Op: Update, Sudo: true}); err != nil {
			t.Error(err)
		}
		if err := s.Check(ctx, tok, Access{Path: "sys/seal", Op: Update, Sudo: true}); !errors.Is(err, ErrDenied) {
			t.Error(err)
		}
	}
	must(t, s.DeletePolicy(ctx, "p", Request{}))
	if err := s.Check(ctx, tok, Access{Path: "sys/rotate", Op: Update}); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
}

func TestPolicies(t *testing.T) {
	s, v, _ := newStore(t)
	ctx := t.Context()
	const text = `path "a" { capabilities = ["read"] }`
	for _, name := range []string{"b", " Team/App ", "..", "ü%2F"} {
		must(t, s.SetPolicy(ctx, name, text, Request{}))
		if _, got, err := s.Policy(ctx, name); err != nil || got != text {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	if names, err := s.Policies(ctx); err != nil || !slices.Equal(names, []string{"..", "b", "default", "root", "team/app", "ü%2f"}) {
		t.Error(names, err)
	}
	if name, got, err := s.Policy(ctx, "root"); name != "root" || got != "" || err != nil {
		t.Error(name, got, err)
	}
	if _, got, err := s.Policy(ctx, "Default"); got != defaultText || err != nil {
		t.Error(got, err)
	}
	must(t, s.SetPolicy(ctx, "default", text, Request{}))
	if _, got, _ := s.Policy(ctx, "default"); got != text {
		t.Error(got)
	}
	if names, _ := s.Policies(ctx); len(names) != 6 {
		t.Error(names)
	}
	if _, _, err := s.Policy(ctx, "none"); !errors.Is(err, ErrNoPolicy) {
		t.Error(err)
	}
	must(t, s.DeletePolicy(ctx, "none", Request{}))
	for _, err := range []error{
		s.SetPolicy(ctx, "root", text, Request{}), s.DeletePolicy(ctx, "root", Request{}), s.DeletePolicy(ctx, "DEFAULT", Request{}),
		s.SetPolicy(ctx, "a", " ", Request{}), s.SetPolicy(ctx, "a", "x", Request{}), s.SetPolicy(ctx, " ", text, Request{}),
		s.SetPolicy(ctx, strings.Repeat("n", 200), text, Request{}), s.SetPolicy(ctx, "a\n", "b", Request{}), s.SetPolicy(ctx, "a,b", text, Request{}),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	}
	// P6: a repeat does not undo what somebody wrote in between.
	req := Request{ID: "1", Slot: "n/1"}
	must(t, s.SetPolicy(ctx, "b", text, req))
	const newer = `path "b" { capabilities = ["read"] }`
	must(t, s.SetPolicy(ctx, "b", newer, Request{}))
	req.Repeat = true
	must(t, again(t, v).SetPolicy(ctx, "b", text, req))
	if _, got, _ := s.Policy(ctx, "b"); got != newer {
		t.Error("a repeat was carried out again")
	}
	must(t, v.Commit(ctx, physical.Put(policyKey("newer"), []byte(`{"format":9}`)), physical.Put(policyKey("broken"), []byte(`x`))))
	if _, _, err := s.Policy(ctx, "newer"); !errors.Is(err, ErrNewerFormat) {
		t.Error(err)
	}
	if _, _, err := s.Policy(ctx, "broken"); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if got, err := s.Capabilities(ctx, &Token{Policies: []string{"b", "gone"}}, "b"); err != nil || !slices.Equal(got, []string{"read"}) {
		t.Error(got, err)
	}
	if got, err := s.Capabilities(ctx, &Token{Policies: []string{"root"}}, "b"); err != nil || !slices.Equal(got, []string{"root"}) {
		t.Error(got, err)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	s, _, root := newStore(b)
	must(b, s.SetPolicy(b.Context(), "p", `path "secret/data/*" { capabilities = ["read"] }
		path "secret/data/+/x" { capabilities = ["read"] }`, Request{}))
	tok := create(b, s, root, Creation{Policies: []string{"p"}}).Secret
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Authorize(b.Context(), tok, Access{Path: "secret/data/app/db", Op: Read}, Request{}); err != nil {
			b.Fatal(err)
		}
	}
}
