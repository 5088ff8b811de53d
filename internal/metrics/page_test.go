package metrics

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/cache"
)

//go:generate go test -count=1 -run ^TestPage$ . -update

var update = flag.Bool("update", false, "write docs/metrics.md")

const pageHead = `# Metrics

<!-- Written by "make docs" from internal/metrics. -->

Each node shows its own, as Prometheus text, at ` + "`/v1/sys/metrics`" + `. A token with ` + "`read`" + ` on that path is needed, unless the configuration says
` + "`telemetry { unauthenticated_metrics_access = true }`" + `. Times are in seconds; what ends in ` + "`_seconds`" + ` and is no point in time or
duration of now is a histogram (` + "`_bucket`, `_sum`, `_count`" + `). Which of them are worth an alert: [operations.md](operations.md). Besides these there are Go's own
(` + "`go_*`, `process_*`" + `), and with storage ` + "`raft`" + ` those of the raft library by its own names: ` + "`raft.commitTime`" + ` is ` + "`locum_raft_engine_commitTime`" + `.

| metric | labels | what |
|---|---|---|
`

// described takes apart what client_golang says of a metric: it offers no other way to its name and help.
var described = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*)", unit: ".*", constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)

// docs/metrics.md lists every metric of a node : an operator need not read the source to know which there are.
func TestPage(t *testing.T) {
	m := New("")
	m.Cache(func() *cache.Node { return nil })
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		m.registry.Describe(descs)
	}()
	var rows []string
	for d := range descs {
		part := described.FindStringSubmatch(d.String())
		if part == nil {
			t.Fatalf("what client_golang says of a metric has another form: %s", d)
		}
		if strings.HasPrefix(part[1], "go_") || strings.HasPrefix(part[1], "process_") {
			continue
		}
		labels := ""
		if part[3] != "" {
			labels = "`" + strings.Join(strings.Split(part[3], ","), "`, `") + "`"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", part[1], labels, part[2]))
	}
	slices.Sort(rows)
	page := pageHead + strings.Join(rows, "")
	path := filepath.Join("..", "..", "docs", "metrics.md")
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != page {
		t.Errorf("docs/metrics.md is not current (%v): run make docs", err)
	}
}
