package apps

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// echo is an application with a WebSocket that says everything back, and sends what it is sent to a channel when that is
// a close frame; with an endless event stream; and with whatever else a test needs.
func echo(t *testing.T, closes chan<- []byte) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		nc, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		for {
			op, payload, err := readFrame(rw.Reader)
			if err != nil {
				return
			}
			if op == 8 {
				closes <- payload
				_, _ = nc.Write(append([]byte{0x88, byte(len(payload))}, payload...))
				return
			}
			_, _ = nc.Write(append([]byte{0x80 | op, byte(len(payload))}, payload...))
		}
	})
	return serve(t, mux)
}

// readFrame reads one short frame, masked or not.
func readFrame(br *bufio.Reader) (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(br, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, head[1]&0x7f)
	_, err = io.ReadFull(br, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, err
}

// dialSocket opens a WebSocket, and says something over it.
func dialSocket(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(nc, "GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get("X-Locum-Node") == "" {
		t.Fatalf("%v, %v", resp, err)
	}
	_, _ = nc.Write([]byte{0x81, 0x85, 1, 2, 3, 4, 'h' ^ 1, 'e' ^ 2, 'l' ^ 3, 'l' ^ 4, 'o' ^ 1})
	if op, p, err := readFrame(br); op != 1 || string(p) != "hello" || err != nil {
		t.Fatalf("%d %q %v", op, p, err)
	}
	return nc, br
}

// Issue 5, point 5: "Connections to a node that is no longer active are ended the way the protocol has for it": a planned
// step-down tells both ends of a WebSocket, ends an event stream cleanly, and waits for neither.
func TestEndlessInASwitchover(t *testing.T) {
	t.Parallel()
	closes := make(chan []byte, 10)
	c := start(t, application(echo(t, closes), ""), answers)
	var sockets []*bufio.Reader
	var events []io.Reader
	for _, n := range c.Nodes {
		_, br := dialSocket(t, address(n))
		sockets = append(sockets, br)
		resp, err := http.Get("http://" + address(n) + "/events")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		buf := make([]byte, len("data: first\n\n"))
		if _, err := io.ReadFull(resp.Body, buf); err != nil {
			t.Fatal(err)
		}
		events = append(events, resp.Body)
	}
	begun := time.Now()
	if err := c.StepDown(within(t, 20*time.Second), c.Nodes[0], "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 8*time.Second { // about half the drain limit
		t.Errorf("the step-down took %v: it waited for what has no end", took)
	}
	for i, br := range sockets {
		op, p, err := readFrame(br)
		if err != nil || op != 8 || len(p) < 2 || int(p[0])<<8|int(p[1]) != 1012 {
			t.Errorf("WebSocket at %s: %d %q, %v; want close 1012", c.Nodes[i].Name, op, p, err)
		}
		if rest, err := io.ReadAll(events[i]); err != nil || len(rest) > 0 {
			t.Errorf("events at %s: %q, %v; want a clean end", c.Nodes[i].Name, rest, err)
		}
	}
	for range sockets {
		select {
		case p := <-closes:
			if len(p) < 2 || int(p[0])<<8|int(p[1]) != 1012 {
				t.Errorf("the application was told %q", p)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the application was not told")
		}
	}
	sockets = nil
	for _, n := range c.Nodes { // and they come again
		_, br := dialSocket(t, address(n))
		sockets = append(sockets, br)
	}
	for i, n := range c.Nodes { // a node that is stopped, whatever it is, says so too
		if err := n.Stop(20 * time.Second); err != nil {
			t.Error(err)
		}
		if op, p, err := readFrame(sockets[i]); err != nil || op != 8 || len(p) < 2 || int(p[0])<<8|int(p[1]) != 1012 {
			t.Errorf("WebSocket at %s, which was stopped: %d %q, %v; want close 1012", n.Name, op, p, err)
		}
	}
}

// When the active node crashes, a standby tells its clients' WebSockets in the protocol; an event stream breaks, so that nobody
// takes it for whole.
func TestEndlessInACrash(t *testing.T) {
	t.Parallel()
	c := start(t, application(echo(t, make(chan []byte, 10)), ""), answers)
	active := findActive(t, c)
	standby := c.Nodes[0]
	if standby == active {
		standby = c.Nodes[1]
	}
	_, br := dialSocket(t, address(standby))
	resp, err := http.Get("http://" + address(standby) + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	active.Kill()
	op, p, err := readFrame(br)
	if err != nil || op != 8 || len(p) < 2 || int(p[0])<<8|int(p[1]) != 1012 {
		t.Errorf("WebSocket: %d %q, %v; want close 1012", op, p, err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the event stream looks whole")
	}
	if err := cluster.Poll(within(t, 10*time.Second), "the next node serves", func() error { return answers(address(standby)) }); err != nil {
		t.Fatal(err)
	}
	dialSocket(t, address(standby))
}

// HTTP/1.1 connections from before a step-down are closed after their next answer, HTTP/2 ones by GOAWAY.
func TestConnectionsAreEnded(t *testing.T) {
	t.Parallel()
	_, url := counting(t)
	c := start(t, application(url, ""), answers)
	active := findActive(t, c)
	get := func(client *http.Client) (closed bool) {
		t.Helper()
		resp, err := client.Get("http://" + address(active) + "/x")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
		return resp.Close
	}
	one, two := &dialCounter{}, &dialCounter{}
	h1, h2 := one.client(t, func(p *http.Protocols) { p.SetHTTP1(true) }), two.client(t, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	for range 3 {
		get(h1)
		get(h2)
	}
	if err := c.StepDown(within(t, 20*time.Second), active, "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if !get(h1) {
		t.Error("HTTP/1.1: no Connection: close")
	}
	get(h2)
	if err := cluster.Poll(within(t, 5*time.Second), "both have a new connection", func() error {
		if get(h1) {
			t.Error("closed a second time")
		}
		get(h2)
		if one.n.Load() != 2 || two.n.Load() != 2 {
			return fmt.Errorf("%d and %d connections", one.n.Load(), two.n.Load())
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// A byte stream reaches the application through every node, half-close included, with the client's address; it waits for a new
// active node at connect, and is ended when leadership changes.
func TestByteStream(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	headers := make(chan []byte, 100)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // everything back, after the end of what came
				defer nc.Close()
				head := make([]byte, 28)
				if _, err := io.ReadFull(nc, head); err != nil {
					return
				}
				headers <- head
				line := bufio.NewReader(nc)
				for {
					s, err := line.ReadString('\n')
					fmt.Fprint(nc, strings.ToUpper(s))
					if err != nil {
						fmt.Fprint(nc, "end")
						return
					}
				}
			}()
		}
	}()
	dial := func(addr string) (*net.TCPConn, error) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		return nc.(*net.TCPConn), nil
	}
	ask := func(addr string) error {
		nc, err := dial(addr)
		if err != nil {
			return err
		}
		defer nc.Close()
		fmt.Fprint(nc, "one\ntwo")
		_ = nc.CloseWrite()
		b, err := io.ReadAll(nc)
		if err == nil && string(b) != "ONE\nTWOend" {
			err = fmt.Errorf("%q", b)
		}
		return err
	}
	c := start(t, application("tcp://"+ln.Addr().String(), "  proxy_protocol = true"), ask)
	var open []*net.TCPConn
	for _, n := range c.Nodes {
		for len(headers) > 0 {
			<-headers
		}
		nc, err := dial(address(n))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		fmt.Fprint(nc, "hello\n")
		buf := make([]byte, 6)
		if _, err := io.ReadFull(nc, buf); err != nil || string(buf) != "HELLO\n" {
			t.Fatalf("%q, %v", buf, err)
		}
		local := nc.LocalAddr().(*net.TCPAddr)
		want := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), local.IP.To4()...)
		want = append(append(want, net.ParseIP(n.IP).To4()...), byte(local.Port>>8), byte(local.Port), port>>8, port&0xff)
		if got := <-headers; !bytes.Equal(got, want) {
			t.Errorf("PROXY header at %s: %x, want %x", n.Name, got, want)
		}
		open = append(open, nc)
	}
	active := findActive(t, c)
	if err := c.StepDown(within(t, 20*time.Second), active, "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for i, nc := range open {
		if b, err := io.ReadAll(nc); errors.Is(err, context.DeadlineExceeded) || len(b) > len("end") {
			t.Errorf("at %s: %q, %v", c.Nodes[i].Name, b, err)
		}
	}
	next := findActive(t, c)
	next.Kill()
	for _, n := range c.Nodes { // held until somebody is
		if n != next {
			if err := ask(address(n)); err != nil {
				t.Errorf("%s after a crash: %v", n.Name, err)
			}
		}
	}
}
