package upstream_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/locum-ha/locum/forward/upstream"
)

// One request after the other on 16 connections, through the active node and through a standby (without TLS between), to an
// application that is nothing but a few lines.
func BenchmarkProxy(b *testing.B) {
	for _, name := range []string{"active", "standby"} {
		b.Run(name, func(b *testing.B) {
			body := make([]byte, 1024)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })}
			go func() { _ = app.Serve(ln) }()
			defer app.Close()
			p := protect(b, upstream.Config{URL: "http://" + ln.Addr().String()})
			benchmark(b, p.at[name])
		})
	}
}

func benchmark(b *testing.B, addr string) {
	const conns = 16
	var all sync.WaitGroup
	b.ResetTimer()
	b.ReportAllocs()
	for i := range conns {
		all.Go(func() {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer nc.Close()
			br := bufio.NewReader(nc)
			for j := i; j < b.N; j += conns {
				_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
				if err := skip(br); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// skip reads an answer of 1024 bytes.
func skip(br *bufio.Reader) error {
	for first := true; ; first = false {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && string(line[9:12]) != "200" {
			return fmt.Errorf("%q", line)
		}
		if len(line) == 2 {
			_, err := br.Discard(1024)
			return err
		}
	}
}
