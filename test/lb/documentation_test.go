package lb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locum-ha/locum/test/cluster"
)

// What the page shows is what was tested, to the byte.
func TestThePageShowsTheFiles(t *testing.T) {
	docs := filepath.Join(cluster.Root(), "docs")
	page, err := os.ReadFile(filepath.Join(docs, "ha.md"))
	ok(t, "the page", err)
	for _, name := range kinds {
		file, err := os.ReadFile(filepath.Join(docs, "lb", name))
		ok(t, name, err)
		if !strings.Contains(string(page), "```\n"+string(file)+"```\n") {
			t.Errorf("docs/ha.md does not show docs/lb/%s as it stands: copy the file into the page, between two lines of ```", name)
		}
	}
}
