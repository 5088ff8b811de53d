package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/fault"
	"github.com/locum-ha/locum/test/load"
	"github.com/locum-ha/locum/test/stores"
)

// external is a data store that is measured under Locum, and by itself.
type external struct {
	name  string
	ttl   time.Duration // of the lock, unless configured
	limit time.Duration // from the crash of the active node's whole tree to the first success
	start func(stores.T) stores.Server
	raw   func(ctx context.Context, address string) (rawStore, error) // nil: a fake, whose own rate says nothing
}

var externals = []external{
	{"etcd", 5 * time.Second, 6 * time.Second, stores.Etcd, rawEtcd},
	{"consul", 10 * time.Second, 21 * time.Second, func(t stores.T) stores.Server { return stores.Consul(t, true) }, rawConsul},
	{"zookeeper", 5 * time.Second, 6*time.Second + 100*time.Millisecond, stores.LargeZooKeeper, rawZooKeeper},
	{"postgresql", 5 * time.Second, 6 * time.Second, stores.PostgreSQL, rawPostgreSQL},
	{"mysql", 5 * time.Second, 6 * time.Second, stores.MariaDB, rawMySQL},
	{"s3 (fake)", 5 * time.Second, 6 * time.Second, stores.S3, nil},
}

// rawStore is a store reached by its own client.
type rawStore struct {
	put, get func(ctx context.Context, key, value string) error
	close    func()
}

const callers = 64

// externalStores measures every store: failovers, and entries beside the store's own operations.
func externalStores(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Data stores",
		How: "One server of each store on the same disk, fsync on, its lock's TTL as it is unless configured; three nodes. Step-down and crash under 200 and 100 requests/s, half GET, half POST; " +
			"the crash kills the active node's whole process tree, the guardian included, so that its lock runs out, and the time is to the first success through a survivor. " +
			"Entries of 1 KiB under fresh keys at 64 connections, to the active node and over all three, beside plain puts and gets of the same by the store's own client, in turn, after a round of both that does not count. " +
			"The part is that of the active node, as the store's own client needs no second hop either; over all three, two requests of three are forwarded. " +
			"What takes the rest: the store does about the same for both (a write of Locum's is an entry, its condition and the fence, many in one transaction), but Locum's nodes take " +
			"of the two processors, which all share, what stands under CPU for HTTP, policies, versions, encryption and forwarding; " +
			"so the faster the store's own puts are, the smaller is the part. Reads come from the active node's memory, checked against its lease. S3 is a fake in the benchmark's own process.",
		Header: []string{"store", "TTL", "step-down gap", "failed", "crash to first success", "failed GETs",
			"writes/s", "over all nodes", "own writes/s", "part", "CPU per write, nodes", "reads/s", "over all nodes", "own reads/s", "part"}}
	var failed error
	for _, e := range externals {
		if only := os.Getenv("LOCUM_STORE"); only != "" && !strings.HasPrefix(e.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "  %s…\n", e.name)
		if err := e.measure(ctx, o, s); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", e.name, err))
		}
	}
	return s, failed
}

// measured is what the rounds of one store gave.
type measured struct {
	gaps, crashes         Rounds[time.Duration]
	failed, gets, sent    int
	lost                  int
	writes, writesAll     Rounds[float64] // at the active node, and over all
	reads, readsAll       Rounds[float64]
	ownWrites, ownReads   Rounds[float64]
	writeParts, readParts Rounds[float64]
	cpu                   Rounds[time.Duration] // of all nodes, for a write at the active one
}

func (e external) measure(ctx context.Context, o options, s *Section) (err error) {
	t := &host{}
	defer func() {
		if r := recover(); r != nil {
			fatal, ok := r.(fatality)
			if !ok {
				panic(r)
			}
			err = fatal.error
		}
		t.end()
	}()
	server := e.start(t)
	c, err := cluster.Start(ctx, func() cluster.Options {
		options := server.Direct()
		options.Dir = filepath.Join(o.dir, strings.Fields(e.name)[0])
		return options
	}())
	if err != nil {
		return err
	}
	defer c.Close()
	m := &measured{}
	if err := m.entries(ctx, o, e, c, server.Addr); err != nil {
		return err
	}
	if err := m.failovers(ctx, o, c); err != nil {
		return fmt.Errorf("%w\n%s", err, c.Tails(8))
	}
	e.report(m, s)
	return nil
}

func (m *measured) failovers(ctx context.Context, o options, c *cluster.Cluster) error {
	steps, crashes := o.rounds(7), o.rounds(3)
	for done, moved := 0, 0; done < steps+crashes; {
		round, cancel := context.WithTimeout(ctx, 3*time.Minute)
		var out *fault.Outcome
		var err error
		if done < steps {
			out, err = fault.StepDown(round, c, fault.Load{Rate: 200})
		} else {
			out, err = fault.PowerLoss(round, c, fault.Load{Rate: 100})
		}
		if err == nil {
			err = c.WaitHealthy(round)
		}
		cancel()
		if errors.Is(err, fault.ErrMoved) && moved < 5 {
			moved++
			continue
		}
		if err != nil {
			return err
		}
		m.lost += len(out.Twice.Lost) + len(out.Twice.Twice)
		if done < steps {
			m.gaps = append(m.gaps, out.Gap)
			m.failed += out.Report.Failed("")
			m.sent += len(out.Report.Records)
		} else {
			m.crashes = append(m.crashes, out.Gap)
			m.gets += out.Report.Failed("GET")
		}
		done++
	}
	return nil
}

// entries writes and reads through Locum and straight, round by round in turn.
func (m *measured) entries(ctx context.Context, o options, e external, c *cluster.Cluster, address string) error {
	length := 2 * time.Second
	if o.quick {
		length = time.Second
	}
	value := strings.Repeat("v", 1024)
	active, _ := c.Active(ctx)
	if active == nil {
		return errors.New("no node is active")
	}
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Address())
	}
	var raw rawStore
	if e.raw != nil {
		var err error
		if raw, err = e.raw(ctx, address); err != nil {
			return err
		}
		defer raw.close()
	}
	for round := range o.rounds(5) + 1 {
		if round == 1 {
			*m = measured{} // the one before warmed everything up: ZooKeeper's virtual machine, tables, connections
		}
		if err := m.through(c, []string{active.Address()}, length, value, &m.writes, &m.reads); err != nil {
			return err
		}
		if err := m.through(c, all, length, value, &m.writesAll, &m.readsAll); err != nil {
			return err
		}
		if e.raw == nil {
			continue
		}
		run := writeRun.Add(1)
		own, err := straight(ctx, length, func(ctx context.Context, caller, i int) error {
			return raw.put(ctx, fmt.Sprintf("%d-%d-%d", run, caller, i), value)
		})
		if err != nil {
			return fmt.Errorf("straight: %w", err)
		}
		m.ownWrites = append(m.ownWrites, own)
		if own, err = straight(ctx, length, func(ctx context.Context, caller, i int) error {
			return raw.get(ctx, fmt.Sprintf("%d-%d-0", run, (caller+i)%callers), value)
		}); err != nil {
			return fmt.Errorf("straight: %w", err)
		}
		m.ownReads = append(m.ownReads, own)
	}
	m.writeParts, m.readParts = ratios(m.writes, m.ownWrites), ratios(m.reads, m.ownReads)
	return nil
}

// through writes fresh entries at some nodes, then reads the first ones of them.
func (m *measured) through(c *cluster.Cluster, addresses []string, length time.Duration, value string, writes, reads *Rounds[float64]) error {
	run := writeRun.Add(1)
	body := fmt.Sprintf(`{"data":{"v":%q}}`, value)
	tail := fmt.Sprintf(" HTTP/1.1\r\nHost: bench\r\nX-Vault-Token: %s\r\nContent-Length: %d\r\n\r\n%s", c.Token, len(body), body)
	saturate := func(what string, rates *Rounds[float64], request load.Request) (*load.Saturation, error) {
		r, err := load.Saturate(addresses, callers, length, request)
		if err == nil && r.Failed > 0 {
			err = fmt.Errorf("%d of %d %s failed", r.Failed, r.Requests, what)
		}
		if err == nil {
			*rates = append(*rates, r.Rate())
		}
		return r, err
	}
	before := cpu(processes(c)...)
	w, err := saturate("writes", writes, func(b []byte, conn, i int) []byte {
		return append(fmt.Appendf(b, "POST /v1/secret/data/bench/%d-%d-%d", run, conn, i), tail...)
	})
	if err != nil {
		return err
	}
	if len(addresses) == 1 {
		m.cpu = append(m.cpu, (cpu(processes(c)...)-before)/time.Duration(w.Requests))
	}
	_, err = saturate("reads", reads, func(b []byte, conn, i int) []byte {
		return fmt.Appendf(b, "GET /v1/secret/data/bench/%d-%d-0 HTTP/1.1\r\nHost: bench\r\nX-Vault-Token: %s\r\n\r\n", run, (conn+i)%callers, c.Token)
	})
	return err
}

func (e external) report(m *measured, s *Section) {
	show := func(r Rounds[float64], f func(float64) string) string {
		if len(r) == 0 {
			return "–"
		}
		return Show(r, f)
	}
	s.Rows = append(s.Rows, []string{e.name, e.ttl.String(), Show(m.gaps, millis), fmt.Sprintf("%d of %d", m.failed, m.sent), Show(m.crashes, millis), fmt.Sprint(m.gets),
		show(m.writes, whole), show(m.writesAll, whole), show(m.ownWrites, whole), show(m.writeParts, two), Show(m.cpu, micros),
		show(m.reads, whole), show(m.readsAll, whole), show(m.ownReads, whole), show(m.readParts, two)})
	s.Targets = append(s.Targets,
		Target{e.name + ": step-down gap", "≤ 100 ms", Show(m.gaps, millis), m.gaps.Median() <= 100*time.Millisecond},
		Target{e.name + ": failed in step-downs", "0", fmt.Sprint(m.failed), m.failed == 0},
		Target{e.name + ": crash to first success", "≤ " + e.limit.String(), Show(m.crashes, millis), m.crashes.Median() <= e.limit},
		Target{e.name + ": acknowledged and lost, or twice", "0", fmt.Sprint(m.lost), m.lost == 0})
	if e.raw != nil {
		s.Targets = append(s.Targets,
			Target{e.name + ": writes/s beside the store's own", "≥ 0.6", Show(m.writeParts, two), m.writeParts.Median() >= .6},
			Target{e.name + ": reads/s beside the store's own", "≥ 0.6", Show(m.readParts, two), m.readParts.Median() >= .6})
	}
}

// host stands in for a test where a server is started.
type host struct{ ends []func() }

// fatality is what Fatalf unwinds with.
type fatality struct{ error }

func (h *host) Helper()                        {}
func (h *host) Logf(string, ...any)            {}
func (h *host) Failed() bool                   { return false }
func (h *host) Cleanup(f func())               { h.ends = append(h.ends, f) }
func (h *host) Errorf(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }
func (h *host) Fatalf(format string, a ...any) { panic(fatality{fmt.Errorf(format, a...)}) }
func (h *host) Skipf(format string, a ...any)  { h.Fatalf(format, a...) }

func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "locum-bench-store-")
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// end undoes everything, the last first.
func (h *host) end() {
	for len(h.ends) > 0 {
		f := h.ends[len(h.ends)-1]
		h.ends = h.ends[:len(h.ends)-1]
		f()
	}
}
