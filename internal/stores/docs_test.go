package stores_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/config"
)

var hclBlock = regexp.MustCompile("(?s)```hcl\n(.*?)```")

// The example at the head of a store's page is a configuration that is accepted as it stands.
func TestExamplesOfStores(t *testing.T) {
	for _, name := range []string{"consul", "etcd", "zookeeper"} {
		page, err := os.ReadFile("../../docs/stores/" + name + ".md")
		if err != nil {
			t.Fatal(err)
		}
		found := hclBlock.FindSubmatch(page)
		if found == nil || !strings.Contains(string(found[1]), "storage \""+name+"\"") {
			t.Fatalf("%s: the page has no example", name)
		}
		c, err := config.Parse(name+".hcl", found[1])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		source := config.Source{
			LookupEnv: func(string) (string, bool) { return "", false }, Hostname: func() (string, error) { return "a", nil },
			Addresses: func() ([]netip.Addr, error) { return nil, nil },
		}
		// The files that it names are not here: all other faults count.
		if err := c.Complete(source); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if line != "" && !strings.Contains(line, "/etc/locum/") && !strings.HasPrefix(strings.TrimSpace(line), "write") {
					t.Errorf("%s: %s", name, line)
				}
			}
		}
	}
}
