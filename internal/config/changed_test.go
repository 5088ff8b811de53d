package config

import (
	"slices"
	"strings"
	"testing"
)

// "SIGHUP warns which changed keys need a restart": those, by the names that they have in the file, and no others.
func TestChanged(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		c, err := Parse("n.hcl", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const before = `
log_level = "info"
node_name = "a"
listener "tcp" {
  address = "127.0.0.1:1"
  tls_disable = true
}
storage "raft" {
  path = "/a"
  retry_join { leader_api_addr = "http://b" }
}
ha { priority = 7 }
`
	if paths := parse(before).Changed(parse(before)); len(paths) != 0 {
		t.Errorf("nothing changed: %q", paths)
	}
	after := strings.NewReplacer(`"info"`, `"debug"`, `"127.0.0.1:1"`, `"127.0.0.1:2"`, `"/a"`, `"/b"`, "priority = 7", "priority = 8", "http://b", "http://c").Replace(before)
	want := []string{"ha.priority", "listener[0].address", "storage.path", "storage.retry_join[0].leader_api_addr"}
	if paths := parse(before).Changed(parse(after)); !slices.Equal(slices.Sorted(slices.Values(paths)), want) {
		t.Errorf("%q, want %q", paths, want)
	}
	more := parse(before + "rate_limit { burst = 9 }\nlistener \"unix\" { address = \"/s\" }\n")
	if paths := parse(before).Changed(more); !slices.Equal(slices.Sorted(slices.Values(paths)), []string{"listener", "rate_limit.burst"}) {
		t.Errorf("%q", paths)
	}
}
