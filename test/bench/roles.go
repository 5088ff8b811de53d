package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/locum-ha/locum/test/front"
)

// The servers of the forwarding benchmark, each a process of its own:
//
//	direct ADDRESS                             the origin alone
//	stock-active ADDRESS DIR                   the origin behind mutual TLS, HTTP/2
//	stock-standby ADDRESS ACTIVE DIR           httputil.ReverseProxy in front of it
//	tuned-standby ADDRESS ACTIVE DIR           the same with a buffer pool
//	locum-active ADDRESS CLUSTERADDRESS DIR    the origin behind a Router that leads
//	locum-standby ADDRESS DIR                  a Router that follows it
//	slow ADDRESS                               the application of the appfailover part
//	socket ADDRESS                             the application of the memory part
//	grpc ADDRESS                               the gRPC application of the applications' part
func role(name string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if want := map[string]int{"direct": 1, "stock-active": 2, "stock-standby": 3, "tuned-standby": 3, "locum-active": 3, "locum-standby": 2, "grpc": 1, "socket": 1, "slow": 1, "cache": 5, "raft": 3}[name]; want != len(args) {
		return fmt.Errorf("role %s with %d arguments", name, len(args))
	}
	switch name {
	case "direct":
		return serve(ctx, &http.Server{Addr: args[0], Handler: http.HandlerFunc(origin)}, false)
	case "cache":
		return cacheRole(ctx, args[0], args[1], args[2], args[3], args[4])
	case "raft":
		return raftRole(ctx, args[0], args[1], args[2])
	case "grpc":
		return serveGRPC(ctx, args[0])
	case "slow":
		return slowStarter(ctx, args[0])
	case "socket":
		return serve(ctx, &http.Server{Addr: args[0], Handler: http.HandlerFunc(socketServer)}, false)
	case "stock-active":
		config, err := stockTLS(args[1])
		if err != nil {
			return err
		}
		return serve(ctx, &http.Server{Addr: args[0], Handler: http.HandlerFunc(origin), TLSConfig: config}, true)
	case "stock-standby":
		proxy, err := stockProxy(args[1], args[2])
		if err != nil {
			return err
		}
		return serve(ctx, &http.Server{Addr: args[0], Handler: proxy}, false)
	case "tuned-standby":
		proxy, err := stockProxy(args[1], args[2])
		if err != nil {
			return err
		}
		proxy.BufferPool = &buffers{}
		return serve(ctx, &http.Server{Addr: args[0], Handler: proxy}, false)
	case "locum-active":
		return front.Active(ctx, front.Address{HTTP: args[0], Cluster: args[1], Dir: args[2]}, http.HandlerFunc(origin))
	case "locum-standby":
		return front.Standby(ctx, front.Address{HTTP: args[0], Dir: args[1]})
	}
	return fmt.Errorf("no role %q", name)
}

var kilobyte = make([]byte, 1024)

// origin is the trivial handler that everything is measured with.
func origin(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(kilobyte)
}

func serve(ctx context.Context, server *http.Server, secure bool) error {
	done := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer done()
	var err error
	if secure {
		err = server.ListenAndServeTLS("", "")
	} else {
		err = server.ListenAndServe()
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// stockTLS is mutual TLS 1.3 with one self-signed P-256 certificate for both sides.
func stockTLS(dir string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(dir+"/stock.pem", dir+"/stock.pem")
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(dir + "/stock.pem")
	if err != nil {
		return nil, err
	}
	pool, err := poolOf(data)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13, ServerName: "stock"}, nil
}

// stockProxy is httputil.ReverseProxy over mutual-TLS HTTP/2 as its documentation shows it.
func stockProxy(active, dir string) (*httputil.ReverseProxy, error) {
	config, err := stockTLS(dir)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse("https://" + active)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute},
	}, nil
}

// buffers spares the proxy an allocation of 32 KiB per request.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
