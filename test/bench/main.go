// Command bench measures what Locum promises to reach, each number beside its target and, where there is one, a peer
// measured in the same run, and prints the result as markdown.
//
//	go run ./bench                       everything, into docs/benchmarks.md too
//	go run ./bench -only forwarding,size some parts
//	go run ./bench -quick                fewer and shorter rounds, to see whether it works
//
// DESIGN. A part is a function that returns a Section: a table, the targets it is held to, and how it was measured.
// What is compared runs interleaved, round by round, and the medians of the rounds are compared. Servers are
// processes of their own, so that their processor time can be told from the load generator's, which shares the
// machine with them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/locum-ha/locum/test/cluster"
)

// part is one group of measurements.
type part struct {
	name string
	run  func(ctx context.Context, o options) (*Section, error)
}

// options are the same for every part.
type options struct {
	quick bool
	bao   string // a binary of OpenBao, or ""
	dir   string // for data; on the disk that is measured
}

// rounds is how often a thing is measured.
func (o options) rounds(full int) int {
	if o.quick {
		return min(full, 2)
	}
	return full
}

var parts = []part{
	{"forwarding", forwarding},
	{"applications", applications},
	{"memory", memory},
	{"appfailover", appFailover},
	{"appstores", appStores},
	{"switchover", switchover},
	{"crash", crash},
	{"freeze", freeze},
	{"readyourwrites", readYourWrites},
	{"reads", reads},
	{"writes", writes},
	{"entries", entries},
	{"stores", externalStores},
	{"size", size},
	{"cache", cachePart},
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "role" { // one of the servers that are measured
		if err := role(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	only := flag.String("only", "", "parts to measure, separated by commas: "+strings.Join(names(), ", "))
	quick := flag.Bool("quick", false, "two short rounds of everything")
	out := flag.String("out", "", "file to write the markdown to as well; default docs/benchmarks.md for a full run")
	bao := flag.String("bao", os.Getenv("BAO"), "`binary` of OpenBao, to be measured beside Locum")
	flag.Parse()
	if *out == "" && *only == "" && !*quick {
		*out = filepath.Join(cluster.Root(), "docs", "benchmarks.md")
	}
	wanted := names()
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("no part %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	dir, err := os.MkdirTemp("", "locum-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	report := &Report{Machine: describeMachine(dir), Quick: *quick}
	var failed error
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s…\n", p.name)
		section, err := p.run(ctx, options{quick: *quick, bao: *bao, dir: filepath.Join(dir, p.name)})
		if err != nil { // shown in the report: nothing is left out because it went wrong
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
			report.Broken = append(report.Broken, fmt.Sprintf("%s: %v", p.name, err))
		}
		if section != nil {
			report.Sections = append(report.Sections, section)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	text := report.Markdown()
	fmt.Print(text)
	if *out != "" {
		failed = errors.Join(failed, os.WriteFile(*out, []byte(text), 0o644))
	}
	return failed
}

func names() []string {
	var all []string
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}
