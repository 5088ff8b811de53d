package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

const (
	sockets    = 10_000
	uploadSize = 1 << 30
)

// socketServer is an application that takes WebSockets and says nothing, and takes uploads.
func socketServer(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		fmt.Fprint(w, n)
		return
	}
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer nc.Close()
	_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	_, _ = io.Copy(io.Discard, nc)
}

// memory measures what a standby needs for connections that say nothing, and for a long upload.
func memory(ctx context.Context, o options) (*Section, error) {
	s := &Section{Title: "Applications: memory of a standby",
		How:    fmt.Sprintf("Resident memory of the standby's process. %d idle WebSockets through it to the application; then one upload of %d MiB.", sockets, uploadSize>>20),
		Header: []string{"what", "before", "with it", "grew by"}}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return s, err
	}
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	app, err := cluster.StartProcess(filepath.Join(o.dir, "app.log"), nil, self, "role", "socket", appIP+":9000")
	if err != nil {
		return s, err
	}
	defer app.Kill()
	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(o.dir, "cluster"), LogLevel: "warn", Extra: func(n *cluster.Node) string {
		return fmt.Sprintf("application \"app\" {\n  upstream = %q\n  listen = \"%s:%d\"\n}\n", "http://"+appIP+":9000", n.IP, appPort)
	}})
	if err != nil {
		return s, err
	}
	defer c.Close()
	active, err := c.WaitActive(ctx, nil)
	if err != nil {
		return s, err
	}
	standby := c.Nodes[0]
	if standby == active {
		standby = c.Nodes[1]
	}
	addr := fmt.Sprintf("%s:%d", standby.IP, appPort)
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := cluster.Poll(limit, "the standby leads to the application", func() error { return upload(limit, addr, 1) }); err != nil {
		return s, err
	}
	rss := func() int64 { return standby.Process().RSS() }
	before := rss()
	conns, err := openSockets(addr, sockets)
	settled(ctx, 3*time.Second)
	with := rss()
	for _, nc := range conns {
		nc.Close()
	}
	if err != nil {
		return s, err
	}
	each := float64(with-before) / sockets / 1024
	s.Rows = append(s.Rows, []string{fmt.Sprintf("%d idle WebSockets", sockets), mib(before), mib(with), fmt.Sprintf("%.1f KiB each", each)})
	s.Targets = append(s.Targets, Target{"memory of a standby: one of 10 000 idle WebSockets", "≤ 40 KiB", fmt.Sprintf("%.1f KiB", each), each <= 40})

	// A node that has not had the sockets, so that the upload cannot hide in what they left behind.
	other := c.Nodes[2]
	if other == active || other == standby {
		other = c.Nodes[1]
	}
	before = other.Process().RSS()
	if err := errors.Join(other.Process().ResetPeak(), upload(ctx, fmt.Sprintf("%s:%d", other.IP, appPort), uploadSize)); err != nil {
		return s, err
	}
	peak := other.Process().PeakRSS()
	s.Rows = append(s.Rows, []string{fmt.Sprintf("upload of %d MiB", uploadSize>>20), mib(before), mib(peak) + " at the most", mib(peak - before)})
	s.Targets = append(s.Targets, Target{"memory of a standby: upload of 1 GiB", "< 32 MiB", mib(peak - before), peak-before < 32<<20})
	return s, nil
}

// settled waits until what a moment has left behind is gone.
func settled(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// openSockets opens so many WebSockets, 50 at a time.
func openSockets(addr string, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	errs := make([]error, 50)
	var all sync.WaitGroup
	for part := range errs {
		all.Go(func() {
			for i := part; i < n && errs[part] == nil; i += len(errs) {
				conns[i], errs[part] = openSocket(addr)
			}
		})
	}
	all.Wait()
	var opened []net.Conn
	for _, nc := range conns {
		if nc != nil {
			opened = append(opened, nc)
		}
	}
	return opened, cmp.Or(errs...)
}

func openSocket(addr string) (net.Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err == nil {
		var resp *http.Response
		resp, err = http.ReadResponse(bufio.NewReaderSize(nc, 512), nil)
		if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			err = fmt.Errorf("status %d instead of a WebSocket", resp.StatusCode)
		}
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return nc, nc.SetDeadline(time.Time{})
}

// upload sends n bytes, and checks that they have arrived.
func upload(ctx context.Context, addr string, n int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+addr+"/", io.LimitReader(zeroes{}, n))
	if err != nil {
		return err
	}
	req.ContentLength = n
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(b) != fmt.Sprint(n)) {
		err = fmt.Errorf("upload: %d %s", resp.StatusCode, b)
	}
	return err
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
