package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Cache is a cluster of nodes that are a cache and nothing else, set up by environment alone, on loopback.
type Cache struct {
	Nodes []*CacheNode
	Token string // of the entries over HTTP
	dir   string
	env   []string
	hosts string
}

// CacheNode is one of them. Its process changes with each start.
type CacheNode struct {
	*Process
	Name string
	Host string // host:port in HA_HOSTS
	API  string // host:port of HTTP
	RESP string // host:port for clients of Redis
	log  string
}

// CacheState is what matters of /v1/sys/cache.
type CacheState struct {
	Status   string `json:"status"`
	State    string `json:"state"`
	IsLeader bool   `json:"is_leader"`
	Leader   string `json:"leader"`
	Term     uint64 `json:"term"`
	Reason   string `json:"reason"`
	Caches   map[string]struct {
		Entries int64 `json:"entries"`
		Bytes   int64 `json:"bytes"`
	} `json:"caches"`
}

// StartCache starts n nodes with their logs in dir, and waits until all are good. env is added to the environment of each.
func StartCache(ctx context.Context, dir string, n int, env ...string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &Cache{dir: dir, env: env, Token: "the-token-of-the-entries"}
	ports, err := FreePorts(3 * n)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for i := range n {
		node := &CacheNode{Name: fmt.Sprintf("cache-%d", i), Host: ports[3*i], API: ports[3*i+1], RESP: ports[3*i+2]}
		node.log = filepath.Join(dir, node.Name+".log")
		c.Nodes = append(c.Nodes, node)
		hosts = append(hosts, "http://"+node.Host)
	}
	c.hosts = strings.Join(hosts, ",")
	for i := range c.Nodes {
		err = errors.Join(err, c.Start(i))
	}
	if err == nil {
		err = c.Good(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("starting a cache: %w\n%s", err, c.Tails(20))
	}
	return c, nil
}

// FreePorts finds ports, as host:port, that nobody listens on now.
func FreePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close() // after all are found, so that they differ
		ports = append(ports, ln.Addr().String())
	}
	return ports, nil
}

// Start starts a node that does not run.
func (c *Cache) Start(i int) error {
	binary, err := Binary()
	if err != nil {
		return err
	}
	n := c.Nodes[i]
	env := append([]string{
		"HA_MODE=true", "HA_HOSTS=" + c.hosts, "HOSTNAME_OVERWRITE=" + n.Host, "CACHE_AUTH_TOKEN=only-for-tests-0123456789",
		"CACHE_API_ADDRESS=" + n.API, "CACHE_RESP_ADDRESS=" + n.RESP, "CACHE_API_TOKEN=" + c.Token,
	}, c.env...)
	n.Process, err = StartProcess(n.log, env, binary, "server")
	return err
}

// State asks a node what it knows.
func (c *Cache) State(ctx context.Context, i int) (CacheState, error) {
	var st CacheState
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Nodes[i].API+"/v1/sys/cache", nil)
	if err != nil {
		return st, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

// Good waits until every node that runs says that all is good.
func (c *Cache) Good(ctx context.Context) error {
	return Poll(ctx, "the cache is good", func() error {
		for i, n := range c.Nodes {
			if !n.Running() {
				return fmt.Errorf("%s does not run", n.Name)
			}
			st, err := c.State(ctx, i)
			if err != nil {
				return err
			}
			if st.Status != "good" {
				return fmt.Errorf("%s: %s, %s: %s", n.Name, st.Status, st.State, st.Reason)
			}
		}
		return nil
	})
}

// Leader waits until a node that runs says that it leads, and returns its index.
func (c *Cache) Leader(ctx context.Context) (leader int, err error) {
	err = Poll(ctx, "the cache has a leader", func() error {
		for i, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			if st, err := c.State(ctx, i); err == nil && st.IsLeader {
				leader = i
				return nil
			}
		}
		return errors.New("no node leads")
	})
	return leader, err
}

// Tails returns the ends of all logs.
func (c *Cache) Tails(lines int) string {
	var b strings.Builder
	for _, n := range c.Nodes {
		data, err := os.ReadFile(n.log)
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimSpace(string(data)), "\n")
		fmt.Fprintf(&b, "--- %s\n%s\n", n.Name, strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return b.String()
}

// Close ends all nodes.
func (c *Cache) Close() {
	for _, n := range c.Nodes {
		if n.Process != nil {
			_ = n.Signal(syscall.SIGTERM)
		}
	}
	for _, n := range c.Nodes {
		if n.Process != nil {
			_ = n.Wait(5 * time.Second) // how it ended is not what is tested here
		}
	}
}
