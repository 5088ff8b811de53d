package test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// probe offers one protocol to a cluster port, as a stranger would, and returns what TLS said.
func probe(ctx context.Context, address, alpn string) error {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 the refusal of a client's certificate comes after its handshake
	return err
}

func unknownProtocol(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no application protocol")
}

// P9: forwarding is accepted only while active: a standby refuses the protocol in the TLS handshake, and its port is
// open for raft alone. Nobody gets in without a certificate anywhere.
func TestProbe(t *testing.T) {
	c := cluster.New(t, calm)
	ctx := within(t, time.Minute)
	for range 2 {
		active, _ := findActive(t, c)
		for _, n := range c.Nodes {
			forward := probe(ctx, n.ClusterAddress(), "locum-forward/1")
			if refused := unknownProtocol(forward); refused == (n == active) {
				t.Errorf("%s, active %v: forwarding: %v", n.Name, n == active, forward)
			}
			raft := probe(ctx, n.ClusterAddress(), "locum-raft/1")
			if unknownProtocol(raft) {
				t.Errorf("%s: raft: %v", n.Name, raft)
			}
			other := probe(ctx, n.ClusterAddress(), "h2")
			if !unknownProtocol(other) {
				t.Errorf("%s: h2: %v", n.Name, other)
			}
			for _, err := range []error{forward, raft, other} {
				if err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
					t.Errorf("%s let a stranger in: %v", n.Name, err)
				}
			}
		}
		if err := c.StepDown(ctx, c.Nodes[0], "", 20*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// P9: connections that say nothing, on every cluster port, delay neither forwarding nor a change of leadership.
func TestSilentConnections(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, time.Minute)
	for _, n := range c.Nodes {
		for range 300 {
			conn, err := net.Dial("tcp", n.ClusterAddress())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
	}
	active, _ := findActive(t, c)
	start := time.Now()
	if err := c.StepDown(ctx, c.Nodes[0], "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for i, client := range clientsOf(t, c) {
		put(ctx, t, client, fmt.Sprintf("silent/%d", i), "written")
	}
	if took := time.Since(start); took > 4*time.Second { // less than a handshake may take
		t.Errorf("the change of leadership and a write through each node took %v", took)
	}
	if now, _ := findActive(t, c); now == active {
		t.Errorf("%s is still active", now.Name)
	}
}
