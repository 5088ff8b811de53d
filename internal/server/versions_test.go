package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/stores"
)

// "Leadership not lost to an older version by accident": what is older is known.
func TestNewer(t *testing.T) {
	rising := []string{"v0.0.1", "v0.9.0", "v0.10.0", "v1.0.0-alpha", "v1.0.0-alpha.1", "v1.0.0-alpha.beta", "v1.0.0-beta.2", "v1.0.0-beta.11",
		"v1.0.0-rc.1", "v1.0.0-rc.1-2-gabcdef", "v1.0.0-rc.2", "v1.0.0", "v1.0.0-3-gabcdef", "v1.0.0-20-gabcdef", "v1.0.1", "1.2", "v1.10.0",
		"v1.10.0-12-g1234567-dirty", "v2-rc", "v2"}
	for i, a := range rising {
		for j, b := range rising {
			if got := newer(a, b); got != (i > j) {
				t.Errorf("newer(%q, %q) = %v", a, b, got)
			}
		}
	}
	for _, odd := range []string{"", "dev", "unknown", "test", "a4127e6", "4127896", "4127896-dirty", "v1.2.3.4", "v1.-2", "v", "v1..2", "v1.0.0x"} {
		if newer(odd, "v1") || newer("v1", odd) || newer(odd, "dev") {
			t.Errorf("%q was compared", odd)
		}
	}
	for _, same := range [][2]string{{"v1", "v1.0.0"}, {"1.0.0", "v1.0.0"}, {"v1.0.0+linux", "v1.0.0+arm"}, {"v1.0.0-dirty", "v1.0.0"}} {
		if newer(same[0], same[1]) || newer(same[1], same[0]) {
			t.Errorf("%q and %q are the same", same[0], same[1])
		}
	}
}

// ranked is a node of this priority and version.
func ranked(id string, priority int, version string) *unsealed {
	c := &config.Config{NodeName: id, HA: config.HA{Priority: priority, Candidate: true}}
	return &unsealed{Server: &Server{id: id, cfg: c, opts: Options{Version: version}}}
}

// knowing makes the node hear from others: the first named was heard from last.
func knowing(u *unsealed, others ...rival) *unsealed {
	u.members.byID = map[string]member{}
	now := time.Now()
	for i, o := range others {
		u.members.byID[o.ID] = member{hello: hello{ID: o.ID, Priority: o.Priority, Version: o.Version, Candidate: true}, echo: now.Add(-time.Duration(i) * time.Millisecond)}
	}
	return u
}

var ranks = []struct {
	name      string
	mine      rival
	others    []rival
	first     string // the other that goes first; "" any, or none
	before    bool   // it goes before this node
	successor string // of this node, if it steps down
}{
	{name: "nobody else", mine: rival{"a", 100, "v1.0.0"}},
	{name: "equal", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"b", 100, "v1.0.0"}}, first: "b", successor: "b"},
	{name: "equal, two", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"b", 100, "v1.0.0"}, {"c", 100, "v1.0.0"}}, first: "b", successor: "b"},
	{name: "priority", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"b", 100, "v1.0.0"}, {"c", 101, "v1.0.0"}}, first: "c", before: true, successor: "c"},
	{name: "lower priority", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"b", 99, "v1.0.0"}}, first: "b", successor: "b"},
	{name: "newer", mine: rival{"a", 100, "v0.9.0"}, others: []rival{{"b", 100, "v0.9.0"}, {"c", 100, "v0.10.0"}}, first: "c", before: true, successor: "c"},
	{name: "newer with a lower priority", mine: rival{"a", 500, "v0.9.0"}, others: []rival{{"b", 900, "v0.9.0"}, {"c", 0, "v0.10.0"}}, first: "c", before: true, successor: "c"},
	{name: "newest of several", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"b", 900, "v1.1.0"}, {"c", 100, "v1.2.0"}}, first: "c", before: true, successor: "c"},
	{name: "older", mine: rival{"a", 100, "v0.10.0"}, others: []rival{{"b", 900, "v0.9.0"}}, successor: "b"},
	{name: "older and equal", mine: rival{"a", 100, "v0.10.0"}, others: []rival{{"b", 900, "v0.9.0"}, {"c", 100, "v0.10.0"}}, first: "c", successor: "c"},
	{name: "pre-release", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"b", 900, "v1.0.0-rc.1"}}, successor: "b"},
	{name: "release after its pre-release", mine: rival{"a", 900, "v1.0.0-rc.1"}, others: []rival{{"b", 900, "v1.0.0-rc.1"}, {"c", 1, "v1.0.0"}}, first: "c", before: true, successor: "c"},
	{name: "dev beside dev", mine: rival{"a", 100, "dev"}, others: []rival{{"b", 100, "dev"}, {"c", 200, "dev"}}, first: "c", before: true, successor: "c"},
	{name: "dev beside a release", mine: rival{"a", 100, "dev"}, others: []rival{{"b", 100, "v1.0.0"}}, first: "b", successor: "b"},
	{name: "dev hides no older version", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"b", 150, "dev"}, {"c", 200, "v0.9.0"}}, first: "b", before: true, successor: "c"},
	{name: "dev between versions", mine: rival{"a", 200, "v0.9.0"}, others: []rival{{"b", 150, "dev"}, {"c", 100, "v1.0.0"}}, first: "b", before: true, successor: "b"},
	{name: "itself among them, of before an upgrade", mine: rival{"a", 100, "v1.1.0"}, others: []rival{{"a", 100, "v1.0.0"}, {"b", 100, "v1.0.0"}}},
	{name: "itself among them, of before it went back", mine: rival{"a", 100, "v1.0.0"}, others: []rival{{"a", 100, "v1.1.0"}, {"b", 100, "v1.0.0"}}, first: "b"},
}

// "Priorities", and "leadership not lost to an older version by accident": who goes first, after a crash and in a step-down.
func TestRanks(t *testing.T) {
	for _, test := range ranks {
		u := ranked(test.mine.ID, test.mine.Priority, test.mine.Version)
		if best := u.foremost(test.others); best.ID != test.first || best.Priority > test.mine.Priority != test.before {
			t.Errorf("%s: %+v lets %+v of %+v go first", test.name, test.mine, best, test.others)
		}
		if test.successor == "" {
			continue
		}
		if got := knowing(u, test.others...).successor(); got != test.successor {
			t.Errorf("%s: %q takes over from %+v, of %+v", test.name, got, test.mine, test.others)
		}
	}
}

// A planned step-down goes to a node whose warm applications work (P5: latency, not errors), whatever its rank; where there is none, by rank.
func TestSuccessorIsFit(t *testing.T) {
	u := knowing(ranked("a", 100, "v1.0.0"), rival{"b", 200, "v1.1.0"}, rival{"c", 100, "v1.0.0"})
	unfit := func(id string) {
		m := u.members.byID[id]
		m.Unfit = "an application does not work here"
		u.members.byID[id] = m
	}
	unfit("b")
	if got := u.successor(); got != "c" {
		t.Errorf("%q takes over, where b's application does not work", got)
	}
	unfit("c")
	if got := u.successor(); got != "b" {
		t.Errorf("%q takes over, where no application works", got)
	}
}

// Whatever the versions and priorities of three nodes: of two that are left one at least goes ahead, never an older one, and all three
// agree with the one that steps down.
func TestRanksAgree(t *testing.T) {
	var kinds []rival
	for _, version := range []string{"dev", "v0.9.0", "v0.10.0", "v0.10.0-rc.1"} {
		for _, priority := range []int{0, 100, 250} {
			kinds = append(kinds, rival{"", priority, version})
		}
	}
	for i := range len(kinds) * len(kinds) * len(kinds) {
		var all []rival
		for n, at := range []int{i % len(kinds), i / len(kinds) % len(kinds), i / len(kinds) / len(kinds)} {
			all = append(all, rival{fmt.Sprint(n), kinds[at].Priority, kinds[at].Version})
		}
		chosen := knowing(ranked("active", 100, "v0.9.0"), all...).successor()
		var ahead []string
		for _, mine := range all {
			best := ranked(mine.ID, mine.Priority, mine.Version).foremost(all)
			if best.Priority > mine.Priority {
				if mine.ID == chosen || best.ID == "" {
					t.Errorf("%+v: %s is chosen, and %s lets %q go first", all, chosen, mine.ID, best.ID)
				}
				continue
			}
			ahead = append(ahead, mine.ID)
			if !inFront(mine, all) {
				t.Errorf("%+v: %s goes ahead", all, mine.ID)
			}
		}
		if len(ahead) == 0 {
			t.Errorf("%+v: nobody goes ahead", all)
		}
	}
}

// "Minimum time between failovers": what the configuration file says reaches the election.
func TestElectionIsConfigured(t *testing.T) {
	n := testCluster(t, 1)[0]
	c, err := config.Parse("locum.hcl", []byte("ha {\n  min_failover_interval = \"10m\"\n  priority = 0\n  candidate = false\n  drain_timeout = \"3s\"\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	n.config.HA = c.HA
	s, err := New(n.config, Options{Open: stores.Open, Version: "v1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	got := (&unsealed{Server: s}).electionConfig()
	if got.MinFailover != 10*time.Minute || *got.Priority != 0 || got.Candidate || got.DrainTimeout != 3*time.Second {
		t.Errorf("the election has %+v", got)
	}
}
