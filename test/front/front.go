// Package front joins packages cluster and forward, without storage or election, into an active node and a standby
// around any handler. It is for what the daemon's own API does not do: streams, gRPC, WebSockets, large bodies, and
// the measurement of the hop alone. TLS, the cluster port and the framing are the real ones.
package front

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/listener"
)

// Address says where a node listens.
type Address struct {
	HTTP    string // clients come here: host:port
	Cluster string // the active node's cluster port
	Dir     string // where the active node leaves its advertisement for standbys
}

// RandomIP returns a loopback address that nobody else uses.
func RandomIP() string {
	var b [3]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("127.%d.%d.%d", 128+b[0]%100, b[1], 1+b[2]%250)
}

const term = 1

func adPath(dir string) string { return filepath.Join(dir, "advertisement.json") }

// forever is the lease of a node that nobody deposes.
type forever struct{ ctx context.Context }

func (f forever) Valid() bool              { return f.ctx.Err() == nil }
func (f forever) Context() context.Context { return f.ctx }

// Active runs a handler as the active node does, until ctx ends.
func Active(ctx context.Context, address Address, handler http.Handler) error {
	identity, err := cluster.NewActiveIdentity(term, "active", "node-a", time.Now())
	if err != nil {
		return err
	}
	router, err := forward.NewRouter(forward.Config{Node: "active", NodeID: "node-a", APIAddr: "http://" + address.HTTP})
	if err != nil {
		return err
	}
	serve := func(ctx context.Context, conn *tls.Conn) {
		_ = router.ServeConn(ctx, conn, cluster.PeerID(conn), cluster.PeerName(conn)) // why it ended matters to nobody here
	}
	port, err := cluster.NewPort(cluster.Config{Address: address.Cluster})
	if err != nil {
		return err
	}
	remove, err := port.Handle(cluster.Protocol{ALPN: cluster.ALPNForward, TLS: identity.ServerTLS, Serve: serve})
	if err != nil {
		return err
	}
	defer remove()
	router.Lead(term, forever{ctx}, handler)
	ad := identity.Advertise("http://"+address.HTTP, "https://"+address.Cluster, time.Now())
	if err := leave(address.Dir, ad); err != nil {
		return err
	}
	return run(ctx, address.HTTP, router, port.Run)
}

// leave writes the advertisement, whole or not at all.
func leave(dir string, ad cluster.Advertisement) error {
	data, err := ad.Marshal()
	if err != nil {
		return err
	}
	part := adPath(dir) + ".part"
	if err := os.WriteFile(part, data, 0o600); err != nil {
		return err
	}
	return os.Rename(part, adPath(dir))
}

// Standby forwards to the active node whose advertisement is, or comes to be, in the directory, until ctx ends.
func Standby(ctx context.Context, address Address) error {
	ad, err := find(ctx, address.Dir)
	if err != nil {
		return err
	}
	identity, err := cluster.NewStandbyIdentity(ad, "standby", "node-b")
	if err != nil {
		return err
	}
	router, err := forward.NewRouter(forward.Config{Node: "standby", NodeID: "node-b", APIAddr: "http://" + address.HTTP})
	if err != nil {
		return err
	}
	host, err := cluster.HostPort(ad.ClusterAddr)
	if err != nil {
		return err
	}
	router.Follow(forward.Target{Term: ad.Term, NodeID: ad.NodeID, Name: ad.Name, APIAddr: ad.APIAddr, ClusterAddr: ad.ClusterAddr,
		Dial: func(ctx context.Context) (net.Conn, error) { return cluster.Dial(ctx, host, identity.ClientTLS()) }})
	return run(ctx, address.HTTP, router, func(context.Context) error { return nil })
}

func find(ctx context.Context, dir string) (cluster.Advertisement, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if data, err := os.ReadFile(adPath(dir)); err == nil {
			return cluster.ParseAdvertisement(data)
		}
		select {
		case <-ctx.Done():
			return cluster.Advertisement{}, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// run serves clients, HTTP/1.1 and HTTP/2 without TLS, as the daemon does, and returns when everything has ended.
func run(ctx context.Context, address string, router *forward.Router, beside func(context.Context) error) error {
	clients, err := listener.New(listener.Config{
		Network: "tcp", Address: address, Handler: router,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MinBodyRate: 256, Streams: true, MaxHeaderBytes: 64 << 10,
	})
	if err != nil {
		return err
	}
	if err := clients.Open(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, 3)
	var wg sync.WaitGroup
	for i, f := range []func(context.Context) error{router.Run, beside} {
		wg.Go(func() { errs[i] = f(ctx) })
	}
	wg.Go(func() {
		<-ctx.Done() // clients are cut off then, as by a node that ends without draining
		_ = clients.Shutdown(ctx)
	})
	errs[2] = clients.Serve()
	cancel()
	wg.Wait()
	return errors.Join(errs...)
}
