package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is everything that was measured.
type Report struct {
	Machine  []string
	Quick    bool
	Sections []*Section
	Broken   []string
}

// Section is one part's result.
type Section struct {
	Title   string
	How     string
	Header  []string
	Rows    [][]string
	Targets []Target
	Notes   []string
}

// Target is one number that was to be reached.
type Target struct {
	What string
	Want string
	Got  string
	Met  bool
}

// Markdown is the page.
func (r *Report) Markdown() string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by `make bench`. Medians, with [least–most] of the rounds. What is compared ran interleaved in one run.\n")
	if r.Quick {
		b.WriteString("\n**A quick run: two short rounds of each. The numbers are not to be cited.**\n")
	}
	b.WriteString("\n## Machine\n\n")
	for _, line := range r.Machine {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	b.WriteString("\n## Targets\n\n")
	table(&b, []string{"what", "target", "measured", "met"}, r.targets())
	for _, line := range r.Broken {
		fmt.Fprintf(&b, "\n**Not measured: %s**\n", line)
	}
	for _, s := range r.Sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", s.Title, s.How)
		table(&b, s.Header, s.Rows)
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "\n%s\n", note)
		}
	}
	return b.String()
}

func (r *Report) targets() [][]string {
	var rows [][]string
	for _, s := range r.Sections {
		for _, t := range s.Targets {
			met := "yes"
			if !t.Met {
				met = "**no**"
			}
			rows = append(rows, []string{t.What, t.Want, t.Got, met})
		}
	}
	return rows
}

func table(b *strings.Builder, header []string, rows [][]string) {
	if len(header) == 0 {
		return
	}
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.ReplaceAll(strings.Join(row, " | "), "\n", " "))
	}
}

// Rounds are the results of the rounds of one thing.
type Rounds[T cmp.Ordered] []T

// Median is the middle one, the lower of two.
func (r Rounds[T]) Median() T {
	var none T
	if len(r) == 0 {
		return none
	}
	sorted := slices.Sorted(slices.Values(r))
	return sorted[(len(sorted)-1)/2]
}

// Show is "median [least–most]" in a format for one value.
func Show[T cmp.Ordered](r Rounds[T], format func(T) string) string {
	if len(r) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s [%s–%s]", format(r.Median()), format(slices.Min(r)), format(slices.Max(r)))
}

func whole(f float64) string { return fmt.Sprintf("%.0f", f) }
func two(f float64) string   { return fmt.Sprintf("%.2f", f) }
func three(f float64) string { return fmt.Sprintf("%.3f", f) }

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }
func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
func mib(n int64) string            { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
