package diagnose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
)

const raftALPN = "locum-raft/1"

func TestPorts(t *testing.T) {
	s := newScene(t)
	r := s.run(s.listener(), s.storage())
	expect(t, r, CheckPorts, OK, s.address+" is free")
	expect(t, r, CheckNode, Warning, "it does not run")
	ln, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan error, 1)
	go func() { done <- web.Serve(ln) }()
	expect(t, s.run(s.listener(), s.storage()), CheckPorts, Error, "is in use by something else", "do: see whose it is (ss -ltnp")
	if err := web.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	s.address = "192.0.2.1:8400" // of nobody (RFC 5737)
	s.api = "http://127.0.0.1:8400"
	s.options.Timeout = 200 * time.Millisecond
	expect(t, s.run(s.listener(), s.storage()), CheckPorts, Error, "is no address of this host", "do: write an address of this host")
	s.address = "127.0.0.1:0"
	expect(t, s.run(s.listener(), s.storage()), CheckPorts, OK, "chosen at the start")
	if os.Geteuid() != 0 {
		s.address = "127.0.0.1:81"
		if ln, err := net.Listen("tcp", s.address); err == nil {
			_ = ln.Close()
			return // this system lets everybody
		}
		expect(t, s.run(s.listener(), s.storage()), CheckPorts, Error, "may not listen on")
	}
}

// self lets a fake answer at this node's own listener.
func (s *scene) self(f http.Handler) {
	s.t.Helper()
	ln, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	node := httptest.NewUnstartedServer(f)
	_ = node.Listener.Close()
	node.Listener = ln
	node.Start()
	s.t.Cleanup(node.Close)
}

func TestThisNode(t *testing.T) {
	const id = "5b1f0c1e-1111-4222-8333-444455556666"
	port := fakeClusterPort(t, id, raftALPN)
	for _, c := range []struct {
		name  string
		node  *fakeNode
		level Level
		parts []string
	}{
		{"active", healthy(200), OK, []string{"unsealed, and active"}},
		{"standby", healthy(429), OK, []string{"standby; active is http://x:8400"}},
		{"no active", healthy(474), Error, []string{"reaches no active node"}},
		{"sealed", healthy(503, "sealed", true), Error, []string{"it is sealed", "do: locum operator unseal"}},
		{"uninitialised", healthy(501, "initialized", false, "sealed", true), Warning, []string{"in no cluster yet", "locum operator init"}},
		{"removed", healthy(530, "removed_from_cluster", true), Error, []string{"was removed from its cluster"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			s.file("data/node-id", id)
			s.self(c.node)
			r := s.run("cluster_addr = \"https://"+port+"\"\n", strings.Replace(s.listener(), "127.0.0.1:0", port, 1), s.storage())
			expect(t, r, CheckNode, c.level, c.parts...)
			expect(t, r, CheckPorts, OK, "is in use by Locum, which answers")
			expect(t, r, CheckNode, OK, "reached at api_addr")
			// The fake holds no lock on the data directory, as a node would.
			expect(t, r, CheckPorts, Warning, "is another one")
			if c.node.health["sealed"] == true {
				expect(t, r, CheckPorts, OK, "opens when the node is unsealed")
			} else {
				expect(t, r, CheckPorts, OK, "this node's cluster port, and takes raft")
				expect(t, r, CheckNode, OK, "reached at cluster_addr")
			}
		})
	}
	s := newScene(t)
	s.file("data/node-id", id)
	s.self(healthy(200))
	s.api = healthy(200, "cluster_id", "cluster-2").start(t)
	foreign := fakeClusterPort(t, "another", raftALPN)
	r := s.run("cluster_addr = \"https://"+foreign+"\"\n", strings.Replace(s.listener(), "127.0.0.1:0", freeAddress(t), 1), s.storage())
	expect(t, r, CheckNode, Error, "a node of another cluster answers")
	expect(t, r, CheckNode, Error, "another node answers (another)")
	expect(t, r, CheckPorts, Error, "this node's cluster port: nothing listens there")
}

func TestListenerThatAsksForACertificate(t *testing.T) {
	s := newScene(t)
	pair, cert, key := issue(t, nil, nil)
	ln, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	node := httptest.NewUnstartedServer(healthy(200))
	_ = node.Listener.Close()
	node.Listener, node.TLS = ln, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	node.StartTLS()
	t.Cleanup(node.Close)
	s.api = "https://" + s.address
	block := s.listener(fmt.Sprintf("tls_cert_file = %q", s.file("c.pem", cert)), fmt.Sprintf("tls_key_file = %q", s.file("k.pem", key)))
	expect(t, s.run(block, s.storage()), CheckNode, Skipped, "asks for a client certificate", "LOCUM_CLIENT_CERT")
	s.options.ClientCerts = []tls.Certificate{pair}
	expect(t, s.run(block, s.storage()), CheckNode, OK, "unsealed, and active")
}

func TestOtherNodes(t *testing.T) {
	s := newScene(t)
	closed := "http://" + freeAddress(t)
	stranger := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(stranger.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	secure := httptest.NewTLSServer(healthy(200))
	t.Cleanup(secure.Close)
	plain := healthy(429).start(t)
	s.options.Timeout = 3 * time.Second
	r := s.run(s.listener(), s.storage(closed, stranger.URL, "http://"+silent.Addr().String(), secure.URL, strings.Replace(plain, "http:", "https:", 1),
		plain, healthy(200).start(t), healthy(503, "sealed", true).start(t), healthy(501, "initialized", false, "sealed", true).start(t),
		healthy(530, "removed_from_cluster", true, "version", "2.0", "cluster_id", "cluster-2").start(t), s.api))
	expect(t, r, CheckOthers, Error, closed, "nothing listens there", "do: start the node there")
	expect(t, r, CheckOthers, Error, stranger.URL, "what answers there is not Locum")
	expect(t, r, CheckOthers, Error, "does not answer in time", "firewall")
	expect(t, r, CheckOthers, Error, secure.URL, "its certificate is refused: its authority is not known here", "leader_ca_cert_file")
	expect(t, r, CheckOthers, Error, "it speaks plain HTTP", "do: write its address with http://")
	expect(t, r, CheckOthers, OK, plain, "standby")
	expect(t, r, CheckOthers, OK, "unsealed, and active")
	expect(t, r, CheckOthers, Warning, "is sealed", "do: locum operator unseal -address")
	expect(t, r, CheckOthers, Warning, "is in no cluster yet")
	expect(t, r, CheckOthers, Warning, "was removed from its cluster")
	expect(t, r, CheckOthers, Error, "of 2 different clusters")
	expect(t, r, CheckOthers, Warning, "different versions: 1.0 (")
	for _, f := range r.Findings {
		if f.Check == CheckOthers && strings.Contains(f.What, s.api) {
			t.Errorf("this node is no other node: %s", f.What)
		}
	}
}

func TestOtherNodesTLS(t *testing.T) {
	ca, caPEM, _ := issue(t, authority, nil)
	pair, _, _ := issue(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"b.example.com"}, nil }, &ca)
	node := httptest.NewUnstartedServer(healthy(200))
	node.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	node.StartTLS()
	t.Cleanup(node.Close)
	wants := httptest.NewUnstartedServer(healthy(200))
	wants.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	wants.StartTLS()
	t.Cleanup(wants.Close)
	s := newScene(t)
	file := s.file("ca.pem", caPEM)
	known := func(address, more string) string {
		return fmt.Sprintf("leader_api_addr = %q\n    leader_ca_cert_file = %q\n    %s", address, file, more)
	}
	r := s.run(s.listener(), s.storage(known(node.URL, ""), known(node.URL, "leader_tls_servername = \"b.example.com\""),
		known(wants.URL, "leader_tls_servername = \"b.example.com\"")))
	expect(t, r, CheckOthers, Error, "it is for b.example.com, and not for 127.0.0.1", "leader_tls_servername")
	expect(t, r, CheckOthers, OK, "unsealed, and active")
	expect(t, r, CheckOthers, Error, "asks for a client certificate", "leader_client_cert_file")
}

func TestNobodyIsActive(t *testing.T) {
	s := newScene(t)
	alone := healthy(474)
	alone.leader = nil
	sealed := healthy(503, "sealed", true)
	fresh := healthy(501, "initialized", false, "sealed", true)
	expect(t, s.run(s.listener(), s.storage(alone.start(t))), CheckOthers, Error, "no node is active", "a majority of the voters")
	expect(t, s.run(s.listener(), s.storage(sealed.start(t))), CheckOthers, Error, "nobody can be active", "do: unseal a majority")
	r := s.run(s.listener(), s.storage(fresh.start(t)))
	expect(t, r, CheckOthers, Warning, "there is nothing to join")
	expect(t, r, CheckMember, Skipped, "no other node can be asked")
	expect(t, s.run(s.listener(), s.storage()), CheckOthers, Skipped, "names none")
	expect(t, s.run(s.listener(), "storage \"inmem\" {\n}\n"), CheckOthers, OK, "of one node")
}

func TestMembership(t *testing.T) {
	const id, idB = "5b1f0c1e-1111-4222-8333-444455556666", "5b1f0c1e-1111-4222-8333-444455557777"
	good, noRaft := fakeClusterPort(t, idB, raftALPN), fakeClusterPort(t, idB, "locum-forward/1")
	proxy := fakeClusterPort(t, "") // ends TLS itself
	active := healthy(200)
	active.leader["leader_cluster_address"] = "https://" + good
	self := member{ID: id, Name: "node-a", Address: "127.0.0.1:8401", Voter: true}
	active.servers = []member{self, {ID: idB, Name: "node-b", Address: good}, {ID: "c", Name: "node-c", Address: good}, {ID: "d", Name: "node-d", Address: freeAddress(t)},
		{ID: idB, Name: "node-e", Address: noRaft}, {ID: "f", Name: "node-f", Address: proxy}}
	address := active.start(t)
	s := newScene(t)
	run := func() Report { return s.run(s.listener(), s.storage(address)) }
	r := run()
	expect(t, r, CheckMember, OK, "in no cluster yet, and can join through "+address)
	expect(t, r, CheckMember, Skipped, "who the members are is not known", "LOCUM_TOKEN")
	expect(t, r, CheckMember, OK, "the cluster port of the active node", "takes raft")
	s.options.Token = "s.token"
	expect(t, run(), CheckMember, OK, "no member yet")
	s.file("data/node-id", id)
	r = run()
	expect(t, r, CheckMember, OK, id+", is a member of the cluster, and votes")
	expect(t, r, CheckMember, OK, "the cluster port of node-b", "takes raft")
	expect(t, r, CheckMember, Error, "where node-c should be, another node answers ("+idB+")", "remove-peer c")
	expect(t, r, CheckMember, Error, "node-d", "nothing listens there")
	expect(t, r, CheckMember, Error, "node-e", "open, but not to raft", "do: look at that node's log")
	expect(t, r, CheckMember, Error, "node-f", "no cluster port", "do: let TCP through")
	active.servers[0].Voter = false
	expect(t, run(), CheckMember, OK, "does not vote yet")
	active.servers[0].Address = "10.0.0.9:8401"
	expect(t, run(), CheckMember, Warning, "knows this node at 10.0.0.9:8401, and cluster_addr is 127.0.0.1:8401")
	s.file("data/raft/vote", "\x20\x00\x00\x00")
	active.servers = active.servers[1:2]
	expect(t, run(), CheckMember, Error, "is no member of this one", "do: end the node, empty its data directory")
}

// A seal key that is not the cluster's is found before the node fails to join with it.
func TestSealFits(t *testing.T) {
	s := newScene(t)
	s.options.OpenSeal = func(config.Seal) (func(context.Context, []byte) error, error) {
		return func(_ context.Context, rootKey []byte) error {
			if string(rootKey) != "wrapped by mine" {
				return errors.New("wrong key")
			}
			return nil
		}, nil
	}
	static := fmt.Sprintf("seal \"static\" {\n  key_file = %q\n}\n", s.file("seal.key", "k"))
	node := healthy(200)
	address := node.start(t)
	expect(t, s.run(s.listener(), s.storage(address), static), CheckMember, Skipped, "whether this node's seal key is the cluster's is not known")
	node.rootKey = []byte("wrapped by another")
	expect(t, s.run(s.listener(), s.storage(address), static), CheckMember, Error, "does not open the root key", "do: copy the key")
	node.rootKey = []byte("wrapped by mine")
	expect(t, s.run(s.listener(), s.storage(address), static), CheckMember, OK, "seal key opens the cluster's root key")
}

func TestClocks(t *testing.T) {
	s := newScene(t)
	now := time.Now().Unix()
	fast, slow, off := healthy(429, "server_time_utc", now+30), healthy(429, "server_time_utc", now-30), healthy(429, "server_time_utc", now+3600)
	r := s.run(s.listener(), s.storage(healthy(429).start(t), fast.start(t), slow.start(t), off.start(t)))
	expect(t, r, CheckClocks, OK, "agrees with the one here")
	expect(t, r, CheckClocks, Warning, "ahead of the one here", "do: let both hosts follow the same time")
	expect(t, r, CheckClocks, Warning, "behind the one here")
	expect(t, r, CheckClocks, Error, "certificates and tokens")
	expect(t, s.run(s.listener(), s.storage()), CheckClocks, Skipped, "no other clock")
	at := time.Unix(1000, 500e6)
	for _, c := range []struct {
		took   time.Duration
		second int64
		want   time.Duration
	}{
		{10 * time.Millisecond, 1000, 0},
		{10 * time.Millisecond, 999, -500 * time.Millisecond},
		{10 * time.Millisecond, 1001, 490 * time.Millisecond},
		{2 * time.Second, 1002, 0},
		{0, 1010, 9500 * time.Millisecond},
		{0, 990, -9500 * time.Millisecond},
	} {
		if got := skew(at, c.took, c.second); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
