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
