package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// The addresses of the applications' part. Locum's nodes listen on addresses of their own, at appPort.
const (
	appIP   = "127.252.0.2"
	appPort = 8080
)

// hop is one way to the application: HTTP at one port, gRPC at the next.
type hop struct {
	name  string
	http  string
	grpc  string
	rates map[string]*crossing // by kind and connections
	pids  []int                // of the proxies on the way
}

// applications compares the way through Locum's nodes with nginx and HAProxy doing the same hops.
func applications(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Applications",
		How: "The same application (1 KiB over HTTP/1.1; a unary gRPC call) behind nginx and HAProxy, alone and two of them chained with TLS between, and behind Locum: " +
			"the active node's own proxy, and a standby, from which requests go to the active node over TLS, and from there to the application. " +
			"Real nodes and servers, each a process of its own, two worker processes or threads each; connections to the application are kept alive everywhere. Closed loop. " +
			"The gRPC client (grpc-go, one connection per caller) costs more than any proxy, which brings the ratios of gRPC together.",
		Header: []string{"way", "kind", "connections", "per second", "p50", "p99", "CPU per request, proxies"}}
	hops, stop, err := startHops(ctx, o.dir)
	defer stop()
	if err != nil {
		return s, err
	}
	length := 1200 * time.Millisecond
	if o.quick {
		length = 700 * time.Millisecond
	}
	for round := range o.rounds(5) {
		for _, n := range []int{1, 16, 64} {
			for i := range hops {
				h := hops[(i+round)%len(hops)]
				if err := h.measureHTTP(n, length); err != nil {
					return s, err
				}
				if err := h.measureGRPC(ctx, n, length); err != nil {
					return s, err
				}
			}
			if err := ctx.Err(); err != nil {
				return s, err
			}
		}
	}
	byName := map[string]*hop{}
	for _, h := range hops {
		byName[h.name] = h
		for _, kind := range []string{"HTTP/1.1", "gRPC"} {
			for _, n := range []int{1, 16, 64} {
				m := h.rates[key(kind, n)]
				s.Rows = append(s.Rows, []string{h.name, kind, strconv.Itoa(n), Show(m.rate, whole), Show(m.p50, micros), Show(m.p99, micros), Show(m.cpu, whole) + " µs"})
			}
		}
	}
	for _, kind := range []string{"HTTP/1.1", "gRPC"} {
		for _, t := range [][3]string{
			{"Locum, active node", "nginx", "application through the active node, 64 connections, "},
			{"Locum, standby", "nginx, two", "application through a standby, 64 connections, "},
		} {
			r := ratios(byName[t[0]].rates[key(kind, 64)].rate, byName[t[1]].rates[key(kind, 64)].rate)
			s.Targets = append(s.Targets, Target{t[2] + kind, "≥ 0.6 × " + t[1], Show(r, two) + " ×", r.Median() >= 0.6})
		}
	}
	return s, nil
}

func key(kind string, n int) string { return kind + " " + strconv.Itoa(n) }

func (h *hop) note(kind string, n int, rate float64, p50, p99 time.Duration, each float64) {
	m := h.rates[key(kind, n)]
	if m == nil {
		m = &crossing{}
		h.rates[key(kind, n)] = m
	}
	m.rate, m.p50, m.p99, m.cpu = append(m.rate, rate), append(m.p50, p50), append(m.p99, p99), append(m.cpu, each)
}

func (h *hop) measureHTTP(n int, length time.Duration) error {
	before := cpuTrees(h.pids)
	r, err := load.Saturate([]string{h.http}, n, length, load.GET("/", ""))
	if err == nil && (r.Failed > 0 || r.Requests == 0) {
		err = fmt.Errorf("%d of %d requests failed", r.Failed, r.Requests)
	}
	if err != nil {
		return fmt.Errorf("%s, HTTP/1.1: %w", h.name, err)
	}
	h.note("HTTP/1.1", n, r.Rate(), r.Quantile(.5), r.Quantile(.99), perRequest(cpuTrees(h.pids)-before, r.Requests))
	return nil
}

func (h *hop) measureGRPC(ctx context.Context, n int, length time.Duration) error {
	before := cpuTrees(h.pids)
	r, err := saturateGRPC(ctx, h.grpc, n, length)
	if err != nil {
		return fmt.Errorf("%s, gRPC: %w", h.name, err)
	}
	h.note("gRPC", n, r.rate, r.p50, r.p99, perRequest(cpuTrees(h.pids)-before, r.n))
	return nil
}

// startHops starts everything, and waits until all ways lead to the application.
func startHops(ctx context.Context, dir string) (hops []*hop, stop func(), err error) {
	var processes []*cluster.Process
	var c *cluster.Cluster
	stop = func() {
		if c != nil {
			_ = c.Close()
		}
		for _, p := range processes {
			_ = p.Stop(5 * time.Second) // nginx's workers outlive a master that is killed
		}
	}
	for _, name := range []string{"nginx", "haproxy"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, stop, fmt.Errorf("%s is missing: %w", name, err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, stop, err
	}
	if err := writeCertificate(dir); err != nil {
		return nil, stop, err
	}
	run := func(name string, args ...string) error {
		p, err := cluster.StartProcess(filepath.Join(dir, filepath.Base(name)+".log"), nil, name, args...)
		if err == nil {
			processes = append(processes, p)
		}
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, stop, err
	}
	err = errors.Join(
		run(self, "role", "direct", at(9000)),
		run(self, "role", "grpc", at(9001)),
		writeProxies(dir),
		run("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")),
		run("haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")),
	)
	if err != nil {
		return nil, stop, err
	}
	if c, err = startNodes(ctx, dir); err != nil {
		return nil, stop, err
	}
	hops, err = hopsThrough(ctx, c, processes[2].Pid(), processes[3].Pid())
	return hops, stop, err
}

// cpuTrees is the processor time of processes and their children.
func cpuTrees(pids []int) time.Duration {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	ticks := 0
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		text := string(data)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // from the third on
		parent, _ := strconv.Atoi(fields[1])
		if slices.Contains(pids, pid) || slices.Contains(pids, parent) {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			ticks += user + system
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// perRequest is in microseconds.
func perRequest(d time.Duration, n int) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(max(n, 1))
}

func at(port int) string { return fmt.Sprintf("%s:%d", appIP, port) }

func startNodes(ctx context.Context, dir string) (*cluster.Cluster, error) {
	return cluster.Start(ctx, cluster.Options{Dir: filepath.Join(dir, "cluster"), LogLevel: "warn", Extra: func(n *cluster.Node) string {
		return fmt.Sprintf("application \"web\" {\n  upstream = %q\n  listen = \"%s:%d\"\n}\napplication \"rpc\" {\n  upstream = %q\n  listen = \"%s:%d\"\n}\n",
			"http://"+at(9000), n.IP, appPort, "h2c://"+at(9001), n.IP, appPort+1)
	}})
}

// hopsThrough names all ways, and waits until each leads to the application.
func hopsThrough(ctx context.Context, c *cluster.Cluster, nginx, haproxy int) ([]*hop, error) {
	active, err := c.WaitActive(ctx, nil)
	if err != nil {
		return nil, err
	}
	standby := c.Nodes[0]
	if standby == active {
		standby = c.Nodes[1]
	}
	way := func(name, http, grpc string, pids ...int) *hop {
		return &hop{name: name, http: http, grpc: grpc, rates: map[string]*crossing{}, pids: pids}
	}
	node := func(name string, n *cluster.Node, pids ...int) *hop {
		return way(name, fmt.Sprintf("%s:%d", n.IP, appPort), fmt.Sprintf("%s:%d", n.IP, appPort+1), pids...)
	}
	first, second := active.Process().Pid(), standby.Process().Pid()
	hops := []*hop{
		way("direct", at(9000), at(9001)),
		way("nginx", at(9010), at(9011), nginx), way("HAProxy", at(9020), at(9021), haproxy), node("Locum, active node", active, first),
		way("nginx, two", at(9012), at(9013), nginx), way("HAProxy, two", at(9022), at(9023), haproxy), node("Locum, standby", standby, first, second),
	}
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, h := range hops {
		err := cluster.Poll(limit, h.name+" leads to the application", func() error {
			return errors.Join(h.measureHTTP(1, time.Millisecond), h.measureGRPC(limit, 1, time.Millisecond))
		})
		if err != nil {
			return nil, err
		}
		clear(h.rates)
	}
	return hops, nil
}

// writeProxies writes the configurations of nginx and HAProxy: HTTP/1.1 at an even port, gRPC at the odd one behind it; for the
// chains, the second half lies behind TLS, 80 ports further.
func writeProxies(dir string) error {
	pem := filepath.Join(dir, "stock.pem")
	nginx := fmt.Sprintf(`daemon off;
worker_processes 2;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log warn;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  keepalive_requests 100000000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_ssl_session_reuse on;
  ssl_certificate %[2]s; ssl_certificate_key %[2]s;
  upstream web  { server %[3]s:9000; keepalive 128; keepalive_requests 100000000; }
  upstream rpc  { server %[3]s:9001; keepalive 128; keepalive_requests 100000000; }
  upstream web2 { server %[3]s:9092; keepalive 128; keepalive_requests 100000000; }
  upstream rpc2 { server %[3]s:9093; keepalive 128; keepalive_requests 100000000; }
  server { listen %[3]s:9010; location / { proxy_pass http://web; } }
  server { listen %[3]s:9011 http2; location / { grpc_pass grpc://rpc; } }
  server { listen %[3]s:9012; location / { proxy_pass https://web2; } }
  server { listen %[3]s:9013 http2; location / { grpc_pass grpcs://rpc2; } }
  server { listen %[3]s:9092 ssl; location / { proxy_pass http://web; } }
  server { listen %[3]s:9093 ssl http2; location / { grpc_pass grpc://rpc; } }
}
`, dir, pem, appIP)
	haproxy := fmt.Sprintf(`global
  nbthread 2
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
listen web
  bind %[1]s:9020
  server a %[1]s:9000
listen rpc
  bind %[1]s:9021 proto h2
  server a %[1]s:9001 proto h2
listen web1
  bind %[1]s:9022
  server a %[1]s:9192 ssl verify none
listen rpc1
  bind %[1]s:9023 proto h2
  server a %[1]s:9193 ssl verify none alpn h2
listen web2
  bind %[1]s:9192 ssl crt %[2]s
  server a %[1]s:9000
listen rpc2
  bind %[1]s:9193 ssl crt %[2]s alpn h2
  server a %[1]s:9001 proto h2
`, appIP, pem)
	return errors.Join(os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(nginx), 0o644),
		os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(haproxy), 0o644))
}
