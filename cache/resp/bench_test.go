package resp

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
)

// BenchmarkGet reads through the server, 16 commands in each pipeline. Only the server's share matters: the client does next to nothing.
func BenchmarkGet(b *testing.B) {
	for _, depth := range []int{1, 16} {
		b.Run(fmt.Sprintf("pipeline=%d", depth), func(b *testing.B) {
			address := start(b, startCache(b), Config{})
			conn, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			value := bytes.Repeat([]byte("x"), 100)
			ask := bytes.Repeat([]byte(encode("GET", "key:000000000001")), depth)
			answer := make([]byte, depth*len("$100\r\n\r\n")+depth*len(value))
			if _, err := io.WriteString(conn, encode("SET", "key:000000000001", string(value))); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, len("+OK\r\n"))); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for range b.N / depth {
				if _, err := conn.Write(ask); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
