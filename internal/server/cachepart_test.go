package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/internal/config"
)

// "Three or five nodes are advised; 1, 2, 4 and 7 work as their quorum allows and say so at start" (issue 6, 1).
func TestCacheSaysWhatItCanLose(t *testing.T) {
	for n, want := range map[int]string{
		0: "", 1: "of 1 host loses everything", 2: "of 2 hosts stops when either is lost", 3: "", 4: "of 4 hosts survives the loss of 1", 5: "",
		6: "of 6 hosts survives the loss of 2", 7: "each write waits for 4 of them",
	} {
		var hosts []string
		for i := range n {
			hosts = append(hosts, fmt.Sprintf("app-%d.app:8402", i))
		}
		p := &cachePart{}
		p.describe(cache.Config{Hosts: hosts, Self: "app-0.app:8402"}, config.Cache{})
		said := strings.Join(p.warnings, "\n")
		if (said == "") != (want == "") || !strings.Contains(said, want) || want != "" && !strings.Contains(said, "3 or 5 are advised") {
			t.Errorf("%d hosts: %q, want %q", n, said, want)
		}
		if n > 1 && !strings.Contains(p.rows["Cache"], fmt.Sprintf("quorum %d", n/2+1)) {
			t.Errorf("%d hosts: the start-up table says %q", n, p.rows["Cache"])
		}
	}
}

// A cache block without hosts is this node alone, whatever the environment says for a node that is a cache and nothing else: that is said.
func TestCacheHostsNotRead(t *testing.T) {
	for _, one := range []struct {
		hosts   string
		members bool
		warned  bool
	}{{"", false, false}, {"app-0.app:8402,app-1.app:8402", false, true}, {"app-0.app:8402,app-1.app:8402", true, false}} {
		t.Setenv("HA_HOSTS", one.hosts)
		env, err := cacheEnvironment(config.Cache{}, "app-0", one.members)
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(env.Warnings, "\n"); strings.Contains(said, "HA_HOSTS is set and not read") != one.warned {
			t.Errorf("%+v: %q", one, said)
		}
	}
}
