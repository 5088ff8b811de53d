package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// P5: a node that was asked to end, and goes on forwarding for its shutdown delay, is not chosen to lead meanwhile.
func TestEndingNodeIsNotChosen(t *testing.T) {
	nodes := testCluster(t, 3)
	nodes[0].config.HA.ShutdownDelay = 3 * time.Second
	for _, n := range nodes {
		n.start()
	}
	token := initialise(t, nodes[0])
	ready(t, nodes...)
	voters(t, nodes[0], token, 3)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		nodes[0].end()
	}()
	leader := func() string {
		_, answer := nodes[1].call("GET", "/v1/sys/leader", "", nil)
		return fmt.Sprint(answer["leader_address"])
	}
	eventually(t, "another leads", func() bool { l := leader(); return l != "" && l != nodes[0].url })
	// Design, "Deactivation": "at exit a node says 503 on /ready first, and goes on forwarding for shutdown_delay".
	if code, answer := nodes[0].call("GET", "/v1/sys/ready", "", nil); code != 503 || !strings.Contains(fmt.Sprint(answer), "shutting down") {
		t.Errorf("the ending node is ready: %d %v", code, answer)
	}
	if code, answer := nodes[0].call("GET", "/v1/sys/key-status", token, nil); code != 200 {
		t.Errorf("the ending node does not forward: %d %v", code, answer)
	}
	if past := history(t, nodes[1], token)[1]; past.Node != nodes[0].name || past.Reason != "shut down" {
		t.Errorf("why its leadership ended: %+v", past)
	}
	for range 4 { // from one to the other, while the first is ending
		before := leader()
		start := time.Now()
		eventually(t, "step-down", func() bool {
			code, _ := nodes[2].call("POST", "/v1/sys/step-down", token, map[string]any{"wait": "10s"})
			return code == 200
		})
		if after := leader(); after == nodes[0].url || after == before {
			t.Fatalf("%s leads after %s, want the third node", after, before)
		}
		t.Logf("step-down beside an ending node: %v", time.Since(start))
	}
	<-ended
}

// P5, P9: sealing the active node loses none of the requests that wait there; afterwards it refuses at once.
func TestSealServesWhatItHeld(t *testing.T) {
	nodes, token := runCluster(t, 3)
	put(t, nodes[0], token, "a", "1")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, n := range append(nodes, nodes...) {
		wg.Go(func() { readUntil(t, stop, n, token) })
	}
	var sealed *testNode
	if code, answer := nodes[0].call("PUT", "/v1/sys/seal", token, nil); code != 204 {
		t.Fatalf("seal: %d %v", code, answer)
	}
	eventually(t, "sealed", func() bool {
		for _, n := range nodes { // the one that was active, whichever that is by now
			if n.server.Sealed() {
				sealed = n
				return true
			}
		}
		return false
	})
	eventually(t, "another serves", func() bool {
		code, _ := nodes[1].call("GET", "/v1/secret/data/a", token, nil)
		return code == 200 || nodes[1] == sealed
	})
	close(stop)
	wg.Wait()
	for _, n := range nodes {
		if n != sealed {
			if past := history(t, n, token)[1]; past.Node != sealed.name || past.Reason != "sealed" {
				t.Errorf("why its leadership ended: %+v", past)
			}
		}
	}
	if link, ok := sealed.server.router.Connected(); ok {
		t.Fatalf("a sealed node keeps its connection to the active one: %+v", link)
	}
}

// readUntil reads at a node, at a calm pace, and tolerates 503 only from a node that is sealed.
func readUntil(t *testing.T, stop <-chan struct{}, n *testNode, token string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		start := time.Now()
		code, answer := n.call("GET", "/v1/secret/data/a", token, nil)
		if code == 503 && n.server.Sealed() {
			continue
		}
		if code != 200 || time.Since(start) > 10*time.Second {
			t.Errorf("a request at %s: %d %v after %v", n.name, code, answer, time.Since(start))
			return
		}
	}
}

// P12: a node that tries to join a host which never answers ends at once all the same.
func TestEndWhileJoining(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	nodes := testCluster(t, 2)
	nodes[0].config.Storage.Raft.RetryJoin = nodes[0].config.Storage.Raft.RetryJoin[1:]
	nodes[0].config.Storage.Raft.RetryJoin[0].LeaderAPIAddr = "http://" + silent.Addr().String()
	nodes[0].start()
	conn, err := silent.Accept() // it tries
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	nodes[0].end()
	if took := time.Since(start); took > 5*time.Second {
		t.Fatalf("ended after %v", took)
	}
}

// An init whose client gave up is carried through, or can be asked for again.
func TestInitWithoutItsClient(t *testing.T) {
	n := testCluster(t, 1)[0]
	n.start()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "PUT", n.url+"/v1/sys/init", nil)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*time.Millisecond, cancel)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
	eventually(t, "initialised", func() bool {
		code, answer := n.call("GET", "/v1/sys/init", "", nil)
		if code == 200 && answer["initialized"] == true {
			return true
		}
		n.call("PUT", "/v1/sys/init", "", map[string]any{})
		return false
	})
	ready(t, n)
}
