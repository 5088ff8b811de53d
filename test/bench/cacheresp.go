package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// redisPair is a Redis with one replica.
type redisPair struct {
	addr      string
	processes []*cluster.Process
}

func startRedisPair(ctx context.Context, dir string) (*redisPair, error) {
	for _, tool := range []string{"redis-server", "redis-benchmark"} {
		if _, err := exec.LookPath(tool); err != nil {
			return &redisPair{}, fmt.Errorf("the peer of this part is not installed (Debian: apt-get install redis-server redis-tools): %w", err)
		}
	}
	ports, err := cluster.FreePorts(2)
	if err != nil {
		return &redisPair{}, err
	}
	r := &redisPair{addr: ports[0]}
	for i, addr := range ports {
		_, port, _ := net.SplitHostPort(addr)
		args := []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir, "--dbfilename", fmt.Sprintf("redis%d.rdb", i)}
		if i == 1 {
			_, first, _ := net.SplitHostPort(r.addr)
			args = append(args, "--replicaof", "127.0.0.1 "+first)
		}
		p, err := cluster.StartProcess(filepath.Join(dir, fmt.Sprintf("redis%d.log", i)), nil, "redis-server", args...)
		if err != nil {
			return r, err
		}
		r.processes = append(r.processes, p)
	}
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return r, cluster.Poll(limit, "Redis has its replica", func() error {
		c, err := dialRESP(r.addr)
		if err != nil {
			return err
		}
		defer c.close()
		if answer, err := c.do("SET", "ready", "1"); err != nil || answer != "+OK" {
			return fmt.Errorf("%s %w", answer, err)
		}
		if answer, err := c.do("WAIT", "1", "100"); err != nil || answer != ":1" {
			return fmt.Errorf("%s %w", answer, err)
		}
		return nil
	})
}

func (r *redisPair) close() {
	for _, p := range r.processes {
		p.Kill()
	}
}

// respClient is one connection.
type respClient struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

func dialRESP(addr string) (*respClient, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &respClient{conn: conn, in: bufio.NewReader(conn)}, nil
}

func (c *respClient) close() { _ = c.conn.Close() }

func (c *respClient) add(args ...string) {
	c.out = fmt.Appendf(c.out, "*%d\r\n", len(args))
	for _, arg := range args {
		c.out = fmt.Appendf(c.out, "$%d\r\n%s\r\n", len(arg), arg)
	}
}

// exchange sends what was added and reads so many answers; it returns the last one's first line.
func (c *respClient) exchange(answers int) (string, error) {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	line := ""
	for i := 0; i < answers && err == nil; i++ {
		if line, err = c.in.ReadString('\n'); err != nil {
			break
		}
		line = strings.TrimSuffix(line, "\r\n")
		if n, notBulk := strconv.Atoi(strings.TrimPrefix(line, "$")); strings.HasPrefix(line, "$") && notBulk == nil && n >= 0 {
			_, err = io.CopyN(io.Discard, c.in, int64(n)+2)
		}
	}
	return line, err
}

// acknowledge sends the SET that was added, and returns when it is on another node, too.
func (c *respClient) acknowledge(how acknowledged) error {
	if how != withWait {
		if answer, err := c.exchange(1); err != nil || answer != "+OK" {
			return fmt.Errorf("SET answered %q: %w", answer, err)
		}
	}
	if how == set {
		return nil
	}
	c.add("WAIT", "1", "0")
	answers := 1
	if how == withWait {
		answers = 2
	}
	answer, err := c.exchange(answers)
	if err != nil || !strings.HasPrefix(answer, ":") || answer == ":0" {
		return fmt.Errorf("WAIT answered %q: %w", answer, err)
	}
	return nil
}

func (c *respClient) do(args ...string) (string, error) {
	c.add(args...)
	return c.exchange(1)
}

// acknowledged is how a client has it that a SET is on more than one node.
type acknowledged uint8

const (
	set      acknowledged = iota // Locum's SET says so itself: it is at level quorum
	thenWait                     // WAIT 1 0 follows when SET is answered
	withWait                     // WAIT 1 0 is sent with it
)

// sets keeps connections busy for a time, each with one SET after the other.
func sets(addr string, how acknowledged, connections int, length time.Duration) (gauged, error) {
	value := strings.Repeat("v", 100)
	each := make([][]time.Duration, connections)
	errs := make([]error, connections)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range connections {
		wg.Go(func() {
			c, err := dialRESP(addr)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.close()
			for n := 0; time.Since(start) < length; n++ {
				begin := time.Now()
				c.add("SET", fmt.Sprintf("resp:%d:%d", i, n%1000), value)
				if err := c.acknowledge(how); err != nil {
					errs[i] = err
					return
				}
				each[i] = append(each[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	all := slices.Sorted(slices.Values(slices.Concat(each...)))
	if len(all) == 0 {
		return gauged{}, errors.Join(append(errs, errors.New("no write was acknowledged"))...)
	}
	return gauged{Rate: float64(len(all)) / elapsed.Seconds(), P50: all[len(all)/2], P99: all[len(all)*99/100]}, errors.Join(errs...)
}

// redisBenchmark runs one of the tests of Redis's own load generator.
func redisBenchmark(ctx context.Context, addr, test string, connections, pipeline, requests int) (gauged, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return gauged{}, err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(limit, "redis-benchmark", "-h", host, "-p", port, "-c", strconv.Itoa(connections), "-P", strconv.Itoa(pipeline),
		"-n", strconv.Itoa(requests), "-r", "1000", "-d", "100", "-t", test, "--csv").Output()
	if err != nil {
		return gauged{}, fmt.Errorf("redis-benchmark: %w: %.200s", err, out)
	}
	return benchmarked(string(out))
}

// benchmarked reads what redis-benchmark --csv prints: a line of titles, and one of values.
func benchmarked(out string) (gauged, error) {
	lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(lines) != 2 {
		return gauged{}, fmt.Errorf("redis-benchmark printed %.300q", out)
	}
	value := func(title string) float64 {
		i := slices.Index(lines[0], title)
		if i < 0 {
			err = errors.Join(err, fmt.Errorf("redis-benchmark does not tell %s: %.300q", title, out))
			return 0
		}
		v, perr := strconv.ParseFloat(lines[1][i], 64)
		err = errors.Join(err, perr)
		return v
	}
	millis := func(title string) time.Duration { return time.Duration(value(title) * float64(time.Millisecond)) }
	return gauged{Rate: value("rps"), P50: millis("p50_latency_ms"), P99: millis("p99_latency_ms")}, err
}

// putsOverRESP adds plain SETs by redis-benchmark: at level quorum, as a connection has it from its beginning.
func (c *cachePeers) putsOverRESP(ctx context.Context, o options, s *Section) error {
	plain, err := leaderOf(ctx, c.plain)
	secured, terr := leaderOf(ctx, c.tls)
	if err := errors.Join(err, terr); err != nil {
		return err
	}
	names := []string{"cache without TLS, leader", "cache without TLS, follower", "cache with TLS, leader", "cache with TLS, follower"}
	addrs := []string{plain[0].resp, plain[1].resp, secured[0].resp, secured[1].resp}
	for _, inflight := range []int{1, 16, 64, 256} {
		requests := map[int]int{1: 10_000, 16: 50_000, 64: 100_000, 256: 150_000}[inflight]
		if o.quick {
			requests /= 5
		}
		var all [4]rated
		for range o.rounds(3) {
			for i, addr := range addrs {
				m, err := redisBenchmark(ctx, addr, "set", inflight, 1, requests)
				if err != nil {
					return fmt.Errorf("SET, %s: %w", names[i], err)
				}
				all[i].add(m)
			}
		}
		for i, name := range names {
			s.Rows = append(s.Rows, all[i].row("RESP SET by redis-benchmark, "+name, inflight))
		}
	}
	return nil
}

// overRESP compares with Redis through its protocol.
func (c *cachePeers) overRESP(ctx context.Context, o options, s *Section) error {
	order, err := leaderOf(ctx, c.plain) // as Redis: its replication has no TLS either
	secured, terr := leaderOf(ctx, c.tls)
	if err := errors.Join(err, terr); err != nil {
		return err
	}
	length, requests := 2*time.Second, 100_000
	if o.quick {
		length, requests = 300*time.Millisecond, 20_000
	}
	addrs := []string{c.redis.addr, order[0].resp, order[1].resp, secured[0].resp}
	for _, addr := range addrs { // what GET reads is there
		if err := fillRESP(addr); err != nil {
			return err
		}
	}
	const redis, locum = 0, 1 // of these
	ways := []struct {
		name string
		how  acknowledged
		addr string
	}{
		{"RESP SET, then WAIT 1 0, Redis 7 with a replica", thenWait, addrs[0]},
		{"RESP SET, cache without TLS, leader", set, addrs[1]},
		{"RESP SET, cache without TLS, follower", set, addrs[2]},
		{"RESP SET, cache with TLS, leader", set, addrs[3]},
		{"RESP SET and WAIT 1 0 sent at once, Redis 7 with a replica", withWait, addrs[0]},
		{"RESP SET and WAIT 1 0 sent at once, cache without TLS, leader", withWait, addrs[1]},
	}
	inFlight := []int{1, 16, 64, 256}
	written := map[int][]rated{} // by connections
	for _, connections := range inFlight {
		written[connections] = make([]rated, len(ways))
	}
	names := []string{"Redis 7 with a replica", "cache without TLS, leader", "cache without TLS, follower", "cache with TLS, leader"}
	gets := map[int]*[4]rated{1: {}, 16: {}} // by depth
	for range o.rounds(5) {
		for _, connections := range inFlight {
			for i, way := range ways {
				m, err := sets(way.addr, way.how, connections, length)
				if err != nil {
					return fmt.Errorf("%s: %w", way.name, err)
				}
				written[connections][i].add(m)
			}
		}
		for depth, into := range gets {
			for i, addr := range addrs {
				m, err := redisBenchmark(ctx, addr, "get", 50, depth, requests*min(depth, 8))
				if err != nil {
					return fmt.Errorf("%s: %w", names[i], err)
				}
				into[i].add(m)
			}
		}
	}
	for _, connections := range inFlight {
		for i, way := range ways {
			s.Rows = append(s.Rows, written[connections][i].row(way.name, connections))
		}
		s.ratio(fmt.Sprintf("RESP SET, acknowledged at quorum, beside Redis's SET followed by WAIT 1 0, %d in flight", connections),
			written[connections][locum].rate.Median()/written[connections][redis].rate.Median(), 1)
	}
	for _, depth := range []int{1, 16} {
		for i, name := range names {
			s.Rows = append(s.Rows, gets[depth][i].row(fmt.Sprintf("RESP GET, pipeline %d, %s", depth, name), 50))
		}
		s.ratio(fmt.Sprintf("RESP GET at pipeline %d, beside Redis", depth), gets[depth][1].rate.Median()/gets[depth][0].rate.Median(), 0.6)
	}
	return nil
}

func fillRESP(addr string) error {
	c, err := dialRESP(addr)
	if err != nil {
		return err
	}
	defer c.close()
	for i := range 1000 {
		c.add("SET", fmt.Sprintf("key:%012d", i), strings.Repeat("v", 100))
	}
	_, err = c.exchange(1000)
	return err
}
