package stores_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/config"
)

var hclBlock = regexp.MustCompile("(?s)```hcl\n(.*?)```")

// Every example of a data store's page is of settings that there are.
func TestBlocksOfStores(t *testing.T) {
	pages, err := filepath.Glob("../../docs/stores/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, path := range pages {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, block := range hclBlock.FindAllSubmatch(page, -1) {
			if text := string(block[1]); strings.Contains(text, "storage \"") {
				found++
				if _, err := config.Parse(filepath.Base(path), []byte(text)); err != nil {
					t.Errorf("%s: %v\n%s", path, err, text)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s has no example", path)
		}
	}
}

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
