package listener

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"testing"
)

// What is taken for a short request is one, of the same length and with the same contents, to net/http too: nothing may be hidden
// behind it that somebody else would see.
func FuzzShortRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /a%20b?c HTTP/1.1\r\nhost:x:1\r\nContent-Length: 3\r\nA: b\r\na:c\r\n\r\nabcGET",
		"GET //h/p?q#f HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\nPragma: no-cache\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nA: \tb \r\nContent-Length:\t07\r\n\r\n1234567", "GET / HTTP/1.1\r\nHost: x\nB: c\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n C: d\r\n\r\n",
		"A / HTTP/1.1\r\nHost:\r\nHost:0\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		size, ok := r.parse(b)
		if !ok || size == 0 || size+r.length > len(b) {
			return
		}
		target, err := r.url()
		br := bufio.NewReader(bytes.NewReader(b))
		want, wantErr := http.ReadRequest(br)
		if wantErr != nil {
			if err == nil {
				t.Fatalf("%q: net/http refuses it: %v", b, wantErr)
			}
			return
		}
		if err != nil {
			return // handed over
		}
		body, err := io.ReadAll(want.Body)
		if err != nil || !bytes.Equal(body, b[size:size+r.length]) {
			t.Fatalf("%q: body %q, %v", b, body, err)
		}
		rest, _ := io.ReadAll(br)
		if !bytes.Equal(rest, b[size+r.length:]) {
			t.Fatalf("%q: %q is left", b, rest)
		}
		if r.method != want.Method || r.target != want.RequestURI || r.host != want.Host || r.close != want.Close || !reflect.DeepEqual(target, want.URL) ||
			int64(r.length) != want.ContentLength || !reflect.DeepEqual(r.header, want.Header) {
			t.Fatalf("%q:\n%+v %+v\n%+v %+v", b, r, target, want, want.URL)
		}
	})
}
