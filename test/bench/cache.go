package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// cachePeers is what the cache's part runs: caches and their peers, each of three processes but Redis.
type cachePeers struct {
	tls, plain, raft []*peer
	redis            *redisPair
}

// peer is one process with a control port.
type peer struct {
	*cluster.Process
	args                []string // of the role
	log                 string
	host, resp, control string // host:port
}

func (p *peer) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p.Process, err = cluster.StartProcess(p.log, nil, self, append([]string{"role"}, p.args...)...)
	return err
}

// ask tells the process to measure something.
func (p *peer) ask(ctx context.Context, path string) (gauged, error) {
	var m gauged
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.control+path, nil)
	if err != nil {
		return m, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return m, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return m, json.NewDecoder(resp.Body).Decode(&m)
}

// startPeers starts three processes of a role: "cache true", "cache false" or "raft".
func startPeers(ctx context.Context, dir, role, tls string) ([]*peer, error) {
	ports, err := cluster.FreePorts(9)
	if err != nil {
		return nil, err
	}
	var peers []*peer
	hosts := strings.Join(ports[:3], ",")
	for i := range 3 {
		p := &peer{log: filepath.Join(dir, fmt.Sprintf("%s-%s-%d.log", role, tls, i)), host: ports[i], resp: ports[3+i], control: ports[6+i]}
		p.args = []string{role, hosts, p.host, p.resp, p.control, tls}
		if role == "raft" {
			p.args = []string{role, hosts, p.host, p.control}
		}
		peers = append(peers, p)
		err = errors.Join(err, p.start())
	}
	if err == nil {
		_, err = leaderOf(ctx, peers)
	}
	return peers, err
}

// leaderOf waits until all that run are good and one leads, and returns it with the others.
func leaderOf(ctx context.Context, peers []*peer) ([]*peer, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var order []*peer
	err := cluster.Poll(ctx, "there is a leader", func() error {
		order = nil
		var others []*peer
		for _, p := range peers {
			if !p.Running() {
				continue
			}
			m, err := p.ask(ctx, "/leads")
			switch {
			case err != nil:
				return err
			case !m.Good:
				return errors.New("a node is not good")
			case m.Leads:
				order = append(order, p)
			default:
				others = append(others, p)
			}
		}
		if len(order) != 1 {
			return fmt.Errorf("%d leaders", len(order))
		}
		order = append(order, others...)
		return nil
	})
	return order, err
}

func killAll(peers []*peer) {
	for _, p := range peers {
		if p.Process != nil {
			p.Kill()
		}
	}
}

// likeDaemons has the cache's processes keep house as nodes do that are a cache and nothing else, with processors and memory, or not.
func (c *cachePeers) likeDaemons(ctx context.Context, on bool) error {
	for _, p := range slices.Concat(c.plain, c.tls) {
		if _, err := p.ask(ctx, fmt.Sprintf("/daemon?on=%t", on)); err != nil {
			return err
		}
	}
	return nil
}

// cachePart compares the cache with what it is built on, and with Redis.
func cachePart(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "The cache",
		How: "Three processes on loopback, 100-byte values, all clusters up and gauged in turn. Puts at level quorum by so many callers in the process of the leader, " +
			"or of a follower; hashicorp/raft: its Apply, with its own stores in memory and its own plain TCP transport, on its leader. RESP: so many connections to nodes that are a cache and nothing else. On each a SET, which Locum answers when a quorum has it, or a SET and, when it is answered, WAIT 1 0; " +
			"then the next. Also with both sent at once. Locum's links are without TLS in the rows that are compared, as Redis's are. By redis-benchmark: SETs with so many connections, GETs with 50. Redis 7 has one replica and nothing on disk.",
		Header: []string{"what", "in flight", "per second", "p50", "p99"}}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return s, err
	}
	var peers cachePeers
	var errs [4]error
	peers.tls, errs[0] = startPeers(ctx, o.dir, "cache", "true")
	defer killAll(peers.tls)
	peers.plain, errs[1] = startPeers(ctx, o.dir, "cache", "false")
	defer killAll(peers.plain)
	peers.raft, errs[2] = startPeers(ctx, o.dir, "raft", "false")
	defer killAll(peers.raft)
	peers.redis, errs[3] = startRedisPair(ctx, o.dir)
	defer peers.redis.close()
	if err := errors.Join(errs[:]...); err != nil {
		return s, err
	}
	err := peers.puts(ctx, o, s)
	killAll(peers.raft)
	if err == nil {
		err = peers.likeDaemons(ctx, true)
	}
	if err == nil {
		err = peers.putsOverRESP(ctx, o, s)
	}
	if err == nil {
		err = peers.overRESP(ctx, o, s)
	}
	if err == nil {
		err = peers.likeDaemons(ctx, false)
	}
	killAll(peers.tls)
	peers.redis.close()
	if err == nil {
		err = peers.locally(ctx, o, s) // alone: the others' heartbeats would be counted too
	}
	if err == nil {
		err = peers.transfer(ctx, o, s)
	}
	if err == nil {
		err = peers.killLeader(ctx, o, s)
	}
	return s, err
}

// rated are the rounds of one thing.
type rated struct {
	rate     Rounds[float64]
	p50, p99 Rounds[time.Duration]
}

func (r *rated) add(m gauged) {
	r.rate, r.p50, r.p99 = append(r.rate, m.Rate), append(r.p50, m.P50), append(r.p99, m.P99)
}

func (r *rated) row(what string, inflight int) []string {
	return []string{what, strconv.Itoa(inflight), Show(r.rate, whole), Show(r.p50, micros), Show(r.p99, micros)}
}

func (c *cachePeers) puts(ctx context.Context, o options, s *Section) error {
	tls, err := leaderOf(ctx, c.tls)
	plain, perr := leaderOf(ctx, c.plain)
	raft, rerr := leaderOf(ctx, c.raft)
	if err := errors.Join(err, perr, rerr); err != nil {
		return err
	}
	length := 1500 * time.Millisecond
	if o.quick {
		length = 300 * time.Millisecond
	}
	ways := []struct {
		name string
		at   *peer
		want float64 // of raft's rate
	}{
		{"hashicorp/raft Apply, leader", raft[0], 0},
		{"cache without TLS, leader", plain[0], 0.8},
		{"cache without TLS, follower", plain[1], 0},
		{"cache with TLS, leader", tls[0], 0.6},
		{"cache with TLS, follower", tls[1], 0},
	}
	for _, inflight := range []int{1, 16, 64, 256} {
		all := make([]rated, len(ways))
		for range o.rounds(5) {
			for i, way := range ways {
				m, err := way.at.ask(ctx, fmt.Sprintf("/put?inflight=%d&for=%s", inflight, length))
				if err != nil {
					return fmt.Errorf("%s, %d in flight: %w", way.name, inflight, err)
				}
				all[i].add(m)
			}
		}
		for i, way := range ways {
			s.Rows = append(s.Rows, all[i].row(way.name, inflight))
			if way.want > 0 {
				s.ratio(fmt.Sprintf("%s, %d in flight, beside raft's own rate", way.name, inflight), all[i].rate.Median()/all[0].rate.Median(), way.want)
			}
		}
	}
	return nil
}

// ratio adds a target that is a least ratio.
func (s *Section) ratio(what string, got, want float64) {
	s.Targets = append(s.Targets, Target{What: what, Want: fmt.Sprintf("≥ %.1f ×", want), Got: fmt.Sprintf("%.2f ×", got), Met: got >= want})
}

// locally measures reads in process.
func (c *cachePeers) locally(ctx context.Context, o options, s *Section) error {
	two, sixteen := Rounds[float64]{}, Rounds[float64]{}
	for range o.rounds(5) {
		for _, one := range []struct {
			goroutines int
			into       *Rounds[float64]
		}{{2, &two}, {16, &sixteen}} {
			m, err := c.plain[0].ask(ctx, fmt.Sprintf("/get?goroutines=%d&for=500ms", one.goroutines))
			if err != nil {
				return fmt.Errorf("local get: %w", err)
			}
			*one.into = append(*one.into, m.Nanos)
		}
	}
	s.Notes = append(s.Notes, fmt.Sprintf("A local get in process takes %s ns of a core with 2 goroutines, %s ns with 16.", Show(two, whole), Show(sixteen, whole)))
	s.Targets = append(s.Targets,
		Target{"local get in process, 2 goroutines", "≤ 200 ns", fmt.Sprintf("%.0f ns", two.Median()), two.Median() <= 200},
		Target{"local get, 16 goroutines beside 2", "≤ 1.3 ×", fmt.Sprintf("%.2f ×", sixteen.Median()/two.Median()), sixteen.Median() <= 1.3*two.Median()})
	return nil
}
