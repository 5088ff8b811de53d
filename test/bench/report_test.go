package main

import (
	"strings"
	"testing"
	"time"
)

func TestRounds(t *testing.T) {
	r := Rounds[time.Duration]{5 * time.Millisecond, time.Millisecond, 3 * time.Millisecond, 9 * time.Millisecond}
	if got := Show(r, millis); got != "3 ms [1 ms–9 ms]" {
		t.Errorf("%s", got)
	}
	if got := Show(Rounds[float64]{}, whole); got != "–" {
		t.Errorf("%s", got)
	}
}

// What was missed, and what could not be measured, stands in the report.
func TestNothingIsHidden(t *testing.T) {
	r := Report{Broken: []string{"writes: no etcd"}, Sections: []*Section{{Title: "T", Header: []string{"a"}, Rows: [][]string{{"1"}},
		Targets: []Target{{"speed", "≥ 2", "1", false}, {"size", "≤ 3", "2", true}}}}}
	text := r.Markdown()
	for _, want := range []string{"| speed | ≥ 2 | 1 | **no** |", "| size | ≤ 3 | 2 | yes |", "Not measured: writes: no etcd", "## T"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

// TestBenchmarked: what redis-benchmark 7 prints, and what it does not.
func TestBenchmarked(t *testing.T) {
	const titles = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"` + "\n"
	m, err := benchmarked(titles + `"SET","105263.16","0.102","0.024","0.087","0.199","0.391","0.455"` + "\n")
	if err != nil || m.Rate != 105263.16 || m.P50 != 87*time.Microsecond || m.P99 != 391*time.Microsecond {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"", titles, "ERROR: failed to fetch CONFIG from server\n", strings.ReplaceAll(titles, "p99", "p98") + `"SET","1","1","1","1","1","1","1"` + "\n"} {
		if m, err := benchmarked(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, m)
		}
	}
}
