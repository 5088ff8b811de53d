package upstream

import (
	"bufio"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What is read the short way is read as net/http reads it.
func FuzzPlainHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain",
		"HTTP/1.1 404 Not Found\r\ncontent-length:0\r\nSet-Cookie: a\r\nset-cookie: b\r\nConnection: close",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5", "HTTP/1.1 200\r\nContent-Length: 05", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1",
		"HTTP/1.1 200 OK\r\nContent-Length: +5", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", "HTTP/1.1 200 OK\nContent-Length: 5",
		"HTTP/1.1 200 \r\nContent-Length:0\r\n0:\x7f", "HTTP/1.1 200 \n\r\nContent-Length:0", "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 5", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var h plainHead
		if strings.Contains(s, "\r\n\r\n") || !h.parse(s) {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(s+"\r\n\r\n")), &http.Request{Method: "GET"})
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", s, err)
		}
		if resp.StatusCode != h.status || resp.ContentLength != h.length || resp.Close != h.close {
			t.Fatalf("%q: %d, length %d, close %v; net/http: %d, %d, %v", s, h.status, h.length, h.close, resp.StatusCode, resp.ContentLength, resp.Close)
		}
		got, want := http.Header{}, http.Header{}
		h.header(got)
		copyHeader(want, resp.Header)
		if _, ok := want["Content-Type"]; !ok {
			want["Content-Type"] = nil
		}
		for name, values := range want {
			if !slices.Equal(got[name], values) {
				t.Errorf("%q: %s is %q, net/http: %q", s, name, got[name], values)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%q: %v, net/http: %v", s, got, want)
		}
	})
}
