package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test's processes are this program itself.
func TestMain(m *testing.M) {
	if os.Getenv("SIGNIN_NODE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// node is one process; its command changes with each start.
type node struct {
	t           *testing.T
	host        string // in HA_HOSTS
	listen      string
	environment []string
	cmd         *exec.Cmd
}

// start starts three nodes and waits until all serve.
func start(t *testing.T) []*node {
	addresses := freeAddresses(t, 6)
	var nodes []*node
	for i := range 3 {
		nodes = append(nodes, &node{t: t, host: addresses[i], listen: addresses[3+i], environment: append(os.Environ(), "SIGNIN_NODE=1",
			"HA_MODE=true", "HA_HOSTS=http://"+strings.Join(addresses[:3], ",http://"), "HOSTNAME_OVERWRITE="+addresses[i], "CACHE_AUTH_TOKEN=only-for-tests-0123456789")})
	}
	for _, n := range nodes {
		n.run()
		t.Cleanup(n.kill)
	}
	await(t, "all nodes serve", func() bool {
		for _, n := range nodes {
			if code, text := n.call("GET", "/ready"); code != 200 || !strings.HasPrefix(text, "good") {
				return false
			}
		}
		return true
	})
	return nodes
}

// freeAddresses finds ports that nobody listens on now.
func freeAddresses(t *testing.T, n int) []string {
	var addresses []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // after all are found, so that they differ
		addresses = append(addresses, ln.Addr().String())
	}
	return addresses
}

func (n *node) run() {
	n.cmd = exec.Command(os.Args[0], "-listen", n.listen)
	n.cmd.Env = n.environment
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// kill ends the process with SIGKILL.
func (n *node) kill() {
	_ = n.cmd.Process.Signal(syscall.SIGKILL)
	_ = n.cmd.Wait()
}

var client = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}

// call returns the status, 0 if there was no answer, and the text. Values are pairs.
func (n *node) call(method, path string, values ...string) (int, string) {
	form := url.Values{}
	for i := 0; i < len(values); i += 2 {
		form.Set(values[i], values[i+1])
	}
	req, err := http.NewRequest(method, "http://"+n.listen+path+"?"+form.Encode(), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// must calls until something was done: what was not done may be sent again.
func (n *node) must(method, path string, values ...string) (int, string) {
	for {
		code, text := n.call(method, path, values...)
		if code != http.StatusServiceUnavailable {
			return code, text
		}
		<-time.After(20 * time.Millisecond)
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within 30 s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func leaderOf(t *testing.T, nodes []*node) (leader *node, others []*node) {
	await(t, "one node leads", func() bool {
		leader, others = nil, nil
		for _, n := range nodes {
			if _, text := n.call("GET", "/ready"); strings.Contains(text, "leader=true") {
				leader = n
			} else {
				others = append(others, n)
			}
		}
		return leader != nil && len(others) == 2
	})
	return leader, others
}

// "A code is redeemed once and only once while the leader is killed": each of many codes is tried at every node at once.
func TestCodesAreRedeemedOnce(t *testing.T) {
	nodes := start(t)
	leader, others := leaderOf(t, nodes)
	var redeemed, unknown, lost atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				user := fmt.Sprintf("user-%d-%d", worker, i)
				code, text := others[worker%2].must("POST", "/authorize", "user", user)
				if code != 200 {
					continue // unknown: there may be a code, but nobody has it
				}
				var successes, doubts atomic.Int64
				var tries sync.WaitGroup
				for _, n := range nodes {
					tries.Go(func() {
						switch status, _ := n.must("POST", "/token", "code", text); status {
						case 200, http.StatusConflict: // the code was taken
							successes.Add(1)
						case 0, http.StatusInternalServerError:
							doubts.Add(1)
						}
					})
				}
				tries.Wait()
				switch {
				case successes.Load() > 1:
					t.Errorf("code of %s was redeemed %d times", user, successes.Load())
				case successes.Load() == 1:
					redeemed.Add(1)
				case doubts.Load() > 0:
					unknown.Add(1)
				default:
					lost.Add(1)
					t.Errorf("code of %s was redeemed by nobody, and nobody is in doubt", user)
				}
			}
		})
	}
	await(t, "codes are redeemed", func() bool { return redeemed.Load() > 50 })
	leader.kill()
	after := redeemed.Load()
	await(t, "codes are redeemed again", func() bool { return redeemed.Load() > after+50 })
	leader.run()
	await(t, "the node is back", func() bool {
		code, text := leader.call("GET", "/ready")
		return code == 200 && strings.HasPrefix(text, "good")
	})
	after = redeemed.Load()
	await(t, "codes are redeemed with all nodes", func() bool { return redeemed.Load() > after+50 })
	close(done)
	wg.Wait()
	t.Logf("%d codes redeemed, %d in doubt", redeemed.Load(), unknown.Load())
}

// A rate limiter that counts at all nodes, and a session that outlives the leader.
func TestLimitAndSession(t *testing.T) {
	nodes := start(t)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for _, n := range nodes {
		for range limit {
			wg.Go(func() {
				switch code, text := n.must("POST", "/authorize", "user", "eager"); code {
				case 200:
					allowed.Add(1)
				case http.StatusTooManyRequests:
				default:
					t.Errorf("%d %s", code, text)
				}
			})
		}
	}
	wg.Wait()
	if allowed.Load() != limit {
		t.Errorf("%d attempts were let through at three nodes, want %d", allowed.Load(), limit)
	}

	leader, others := leaderOf(t, nodes)
	_, code := others[0].must("POST", "/authorize", "user", "ada")
	status, session := others[0].must("POST", "/token", "code", code)
	if status != 200 {
		t.Fatalf("%d %s", status, session)
	}
	leader.kill()
	if status, who := others[1].must("GET", "/me", "session", session); status != 200 || who != "ada" {
		t.Errorf("the session after the leader was killed: %d %s", status, who)
	}
	if status, _ := others[0].must("POST", "/signout", "session", session); status != 200 {
		t.Errorf("signing out: %d", status)
	}
	await(t, "the session is gone everywhere", func() bool {
		status, _ := others[1].must("GET", "/me", "session", session)
		return status == http.StatusUnauthorized
	})
}
