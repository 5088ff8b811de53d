package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// bao is a three-node cluster of a server with Vault's API and configuration, OpenBao that is: on raft, plain HTTP, one key share,
// KV version 2 at secret/.
type bao struct {
	addresses []string // the first one is the active node's
	processes []*cluster.Process
	token     string
}

// startBao starts the binary that was given with -bao.
func startBao(ctx context.Context, binary, dir string) (*bao, error) {
	b := &bao{}
	for i := range 3 {
		b.addresses = append(b.addresses, fmt.Sprintf("127.251.1.%d:8200", i+1))
	}
	for i := range b.addresses {
		p, err := b.start(binary, filepath.Join(dir, strconv.Itoa(i)), i)
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.processes = append(b.processes, p)
	}
	if err := b.form(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bao) start(binary, dir string, i int) (*cluster.Process, error) {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	host := strings.TrimSuffix(b.addresses[i], ":8200")
	var text strings.Builder
	fmt.Fprintf(&text, "api_addr = \"http://%s:8200\"\ncluster_addr = \"https://%s:8201\"\n", host, host)
	fmt.Fprintf(&text, "listener \"tcp\" {\n  address = \"%s:8200\"\n  cluster_address = \"%s:8201\"\n  tls_disable = true\n}\n", host, host)
	fmt.Fprintf(&text, "storage \"raft\" {\n  path = %q\n", data)
	for j, other := range b.addresses {
		if j != i {
			fmt.Fprintf(&text, "  retry_join {\n    leader_api_addr = \"http://%s\"\n  }\n", other)
		}
	}
	text.WriteString("}\n")
	if filepath.Base(binary) == "bao" { // as it comes a standby answers reads itself, with what may be old
		text.WriteString("disable_standby_reads = true\n")
	}
	config := filepath.Join(dir, "config.hcl")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	return cluster.StartProcess(filepath.Join(dir, "log"), nil, binary, "server", "-config="+config)
}

// form initialises the first node, lets the others join, unseals all, and mounts the entries.
func (b *bao) form(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var made struct {
		Keys      []string `json:"keys"`
		RootToken string   `json:"root_token"`
	}
	err := cluster.Poll(limit, "the first node is initialised", func() error {
		return b.call(limit, 0, "PUT", "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &made)
	})
	if err != nil {
		return err
	}
	b.token = made.RootToken
	for i := range b.addresses {
		err := cluster.Poll(limit, b.addresses[i]+" is unsealed", func() error {
			var status struct{ Sealed, Initialized bool }
			if err := b.call(limit, i, "PUT", "sys/unseal", map[string]string{"key": made.Keys[0]}, &status); err != nil {
				return err
			}
			if status.Sealed {
				return errors.New("sealed")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	mount := map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}
	value := map[string]any{"data": map[string]string{"v": strings.Repeat("v", 1024)}}
	return cluster.Poll(limit, "all nodes serve", func() error {
		// What has entries there already refuses the mount.
		_ = b.call(limit, 0, "POST", "sys/mounts/secret", mount, nil)
		for i := range b.addresses {
			if err := b.call(limit, i, "POST", "secret/data/bench/read", value, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bao) call(ctx context.Context, i int, method, path string, in, out any) error {
	once, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(once, method, "http://"+b.addresses[i]+"/v1/"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("X-Vault-Token", b.token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, path, answer.StatusCode, bytes.TrimSpace(text))
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(text, out)
}

func (b *bao) close() error {
	for _, p := range b.processes {
		p.Kill()
	}
	return nil
}

// entries compares entries read and written, at the active node and through a standby, with a bao where one is given.
func entries(ctx context.Context, o options) (*Section, error) {
	if o.bao == "" {
		return nil, nil
	}
	s := &Section{Title: "Entries, beside OpenBao",
		How: "KV version 2, 1 KiB values, three nodes on raft each, plain HTTP, both clusters up and measured in turn: one entry read again and again, " +
			"fresh entries written; at the active node and through a standby, which forwards.",
		Header: []string{"server", "what", "connections", "requests/s", "p50", "p99"}}
	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(o.dir, "locum")})
	if err != nil {
		return s, err
	}
	defer c.Close()
	peer, err := startBao(ctx, o.bao, filepath.Join(o.dir, "bao"))
	if err != nil {
		return s, fmt.Errorf("%s: %w", o.bao, err)
	}
	defer peer.close()
	active, _ := c.Active(ctx)
	standby := c.Nodes[(active.Index+1)%len(c.Nodes)]
	value := map[string]any{"data": map[string]string{"v": strings.Repeat("v", 1024)}}
	if err := c.Call(ctx, active, http.MethodPost, "/v1/secret/data/bench/read", value, nil); err != nil {
		return s, err
	}
	servers := []kvServer{
		{"locum", c.Token, [2]string{active.Address(), standby.Address()}},
		{"bao", peer.token, [2]string{peer.addresses[0], peer.addresses[1]}},
	}
	return s, compareEntries(ctx, o, s, servers)
}

// kvServer is a cluster to be measured: its active node and a standby.
type kvServer struct {
	name, token string
	addresses   [2]string
}

// kvPoint is one thing that is measured.
type kvPoint struct {
	write       bool
	standby     int // 0: at the active node
	connections int
}

func (p kvPoint) String() string {
	return []string{"read", "write"}[btoi(p.write)] + []string{" at the active node", " through a standby"}[p.standby]
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareEntries(ctx context.Context, o options, s *Section, servers []kvServer) error {
	length := 2 * time.Second
	if o.quick {
		length = time.Second
	}
	var points []kvPoint
	for _, write := range []bool{false, true} {
		for standby := range 2 {
			for _, n := range []int{1, 16, 64} {
				points = append(points, kvPoint{write, standby, n})
			}
		}
	}
	result := map[string]map[kvPoint]*writers{servers[0].name: {}, servers[1].name: {}}
	for range o.rounds(5) {
		for _, p := range points {
			for _, who := range servers {
				r, err := who.measure(p, length)
				if err != nil {
					return fmt.Errorf("%s, %s, %d connections: %w", who.name, p, p.connections, err)
				}
				if result[who.name][p] == nil {
					result[who.name][p] = &writers{}
				}
				result[who.name][p].add(r)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	for _, p := range points {
		for _, who := range servers {
			m := result[who.name][p]
			s.Rows = append(s.Rows, []string{who.name, p.String(), strconv.Itoa(p.connections), Show(m.rate, whole), Show(m.p50, micros), Show(m.p99, micros)})
		}
		ratio := ratios(result[servers[0].name][p].rate, result[servers[1].name][p].rate)
		s.Targets = append(s.Targets, Target{fmt.Sprintf("entries: %s, %d connections", p, p.connections), "≥ 1.5 × bao", Show(ratio, two) + " ×", ratio.Median() >= 1.5})
	}
	return nil
}

func (k kvServer) measure(p kvPoint, length time.Duration) (written, error) {
	request := load.GET("/v1/secret/data/bench/read", k.token)
	if p.write {
		request = writing(k.token, strings.Repeat("v", 1024))
	}
	r, err := load.Saturate([]string{k.addresses[p.standby]}, p.connections, length, request)
	if err != nil {
		return written{}, err
	}
	if r.Failed > 0 || r.Requests == 0 {
		return written{}, fmt.Errorf("%d of %d requests failed", r.Failed, r.Requests)
	}
	return written{rate: r.Rate(), p50: r.Quantile(.5), p99: r.Quantile(.99)}, nil
}
