package listener

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func proxyFrom(texts ...string) func(*Config) {
	s := sourcesOf(texts...)
	return func(c *Config) { c.Proxies = &s }
}

func forwardedFrom(texts ...string) func(*Config) {
	return func(c *Config) { c.Forwarders = sourcesOf(texts...) }
}

func TestProxyHeaderNamesTheClient(t *testing.T) {
	l := started(t, whoami, proxyFrom("127.0.0.0/8"))
	for name, header := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", "v2": string(v2tcp4("192.0.2.7:56324")),
	} {
		t.Run(name, func(t *testing.T) {
			c := l.dial(t)
			send(t, c, header+get)
			if code, body := answer(t, c); code != 200 || body != "192.0.2.7:56324" {
				t.Errorf("%d %q", code, body)
			}
		})
		t.Run(name+" in pieces", func(t *testing.T) {
			c := l.dial(t)
			for _, b := range []byte(header + get) {
				send(t, c, string([]byte{b}))
			}
			if code, body := answer(t, c); code != 200 || body != "192.0.2.7:56324" {
				t.Errorf("%d %q", code, body)
			}
		})
	}
	for name, header := range map[string]string{"v1 unknown": "PROXY UNKNOWN\r\n", "v2 local": string(v2(0, 0, nil))} {
		t.Run(name, func(t *testing.T) {
			c := l.dial(t)
			send(t, c, header+get)
			if code, body := answer(t, c); code != 200 || body != c.LocalAddr().String() {
				t.Errorf("%d %q, want the sender itself", code, body)
			}
		})
	}
}

// One header counts for all requests of its connection, also over TLS and with HTTP/2.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	ca, f := newAuthority(t, "ca"), newFiles(t)
	f.identity(ca.leaf(t, "node"))
	l := started(t, whoami, f.use, proxyFrom("127.0.0.1/32"))
	for _, proto := range []string{"http/1.1", "h2"} {
		c := l.dial(t)
		send(t, c, string(v2tcp6("[2001:db8::7]:99")))
		tc := tls.Client(c, &tls.Config{RootCAs: ca.pool(), ServerName: "127.0.0.1", NextProtos: []string{proto}})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		var protocols http.Protocols
		protocols.SetHTTP1(proto == "http/1.1")
		protocols.SetHTTP2(proto == "h2")
		tr := &http.Transport{DialTLSContext: once(tc), Protocols: &protocols}
		defer tr.CloseIdleConnections()
		for range 2 {
			resp, err := (&http.Client{Transport: tr}).Get("https://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "[2001:db8::7]:99" {
				t.Errorf("%s: %q", resp.Proto, body)
			}
		}
	}
}

func TestProxyHeaderBadOrAbsent(t *testing.T) {
	l := started(t, whoami, proxyFrom("127.0.0.1/32"))
	for name, text := range map[string]string{
		"absent":    get,
		"malformed": "PROXY TCP4 one two 1 2\r\n" + get,
		"endless":   "PROXY UNKNOWN" + strings.Repeat("x", 200),
		"TLS":       "\x16\x03\x01\x00\x05hello",
		"too long":  string(v2(0, 0, make([]byte, 9000))),
	} {
		t.Run(name, func(t *testing.T) {
			c := l.dial(t)
			send(t, c, text)
			closed(t, c)
		})
	}
}

func TestProxyHeaderFromElsewhere(t *testing.T) {
	l := started(t, whoami, proxyFrom("10.0.0.0/8"))
	c := l.dial(t)
	send(t, c, "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"+get)
	if code, body := answer(t, c); code != 400 {
		t.Errorf("a header from elsewhere: %d %q", code, body)
	}
	c = l.dial(t)
	send(t, c, get)
	if code, body := answer(t, c); code != 200 || body != c.LocalAddr().String() {
		t.Errorf("without a header: %d %q", code, body)
	}
}

// A connection that is slow with its header delays no other, and ends (P12).
func TestProxyHeaderSlow(t *testing.T) {
	l := started(t, whoami, proxyFrom("127.0.0.1/32"), func(c *Config) { c.ReadHeaderTimeout = 200 * time.Millisecond })
	silent, partial := l.dial(t), l.dial(t)
	send(t, partial, "PROXY TCP4 192.0")
	c := l.dial(t)
	send(t, c, "PROXY UNKNOWN\r\n"+get)
	if code, _ := answer(t, c); code != 200 {
		t.Errorf("%d", code)
	}
	closed(t, silent)
	closed(t, partial)
}

// What a PROXY header says is what X-Forwarded-For is judged by: a balancer in front of a proxy in front of this node.
func TestForwardedOverProxyProtocol(t *testing.T) {
	l := started(t, whoami, proxyFrom("127.0.0.1/32"), forwardedFrom("10.0.0.0/8"))
	for _, tc := range []struct{ proxied, xff, want string }{
		{"10.0.0.9", "198.51.100.1, 192.0.2.7", "192.0.2.7:0 authorized"},
		{"203.0.113.5", "192.0.2.7", "203.0.113.5:1"},
	} {
		c := l.dial(t)
		send(t, c, "PROXY TCP4 "+tc.proxied+" 10.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: "+tc.xff+"\r\n\r\n")
		if _, body := answer(t, c); body != tc.want {
			t.Errorf("%v: %q", tc, body)
		}
	}
	// The sender itself is no proxy of requests.
	c := l.dial(t)
	send(t, c, "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
	if _, body := answer(t, c); body != c.LocalAddr().String() {
		t.Errorf("of the sender: %q", body)
	}
}

func TestForwardedPerListener(t *testing.T) {
	believing, not := started(t, whoami, forwardedFrom("127.0.0.1/32")), started(t, whoami)
	for _, l := range []*Listener{believing, not} {
		c := l.dial(t)
		send(t, c, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
		want := c.LocalAddr().String()
		if l == believing {
			want = "192.0.2.7:0 authorized"
		}
		if _, body := answer(t, c); body != want {
			t.Errorf("%q, want %q", body, want)
		}
	}
}

// A client that takes nothing of its answer is cut off; one that takes it slowly, or waits long for more, is not.
func TestSlowReader(t *testing.T) {
	ended := make(chan error, 1)
	step := make(chan struct{})
	l := opened(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			for range 3 {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
				<-step
			}
			return
		}
		buf := make([]byte, 1<<20)
		for {
			if _, err := w.Write(buf); err != nil {
				ended <- err
				return
			}
		}
	})
	l.writeStall = 100 * time.Millisecond
	l.run(t)
	stuck := l.dial(t)
	send(t, stuck, get)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the handler still writes to a client that takes nothing")
	}
	stream := l.dial(t)
	send(t, stream, strings.Replace(get, "/", "/stream", 1))
	for range 3 {
		<-time.After(3 * l.writeStall) // nothing is written for longer than a write may take
		step <- struct{}{}
	}
	if code, body := answer(t, stream); code != 200 || body != "xxx" {
		t.Errorf("%d %q", code, body)
	}
}
