package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkWrite: 1 KiB under fresh keys, through a standby, three nodes in this process.
func BenchmarkWrite(b *testing.B) {
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) { benchmarkWrite(b, parallel) })
	}
}

func benchmarkWrite(b *testing.B, parallel int) {
	nodes := testCluster(b, 3)
	for _, n := range nodes {
		n.quiet = true
		n.start()
	}
	token := initialise(b, nodes[0])
	ready(b, nodes...)
	voters(b, nodes[0], token, 3)
	body := []byte(`{"data":{"v":"` + strings.Repeat("x", 1024) + `"}}`)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}
	var n atomic.Int64
	b.SetParallelism(parallel) // times GOMAXPROCS
	b.ResetTimer()
	defer func() {
		b.StopTimer()
		if os.Getenv("METRICS") != "" {
			b.Logf("%s", nodes[0].raw("GET", "/v1/sys/metrics", "", nil, 200))
		}
	}()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, _ := http.NewRequest("POST", fmt.Sprintf("%s/v1/secret/data/k%d", nodes[1].url, n.Add(1)), bytes.NewReader(body))
			req.Header.Set("X-Vault-Token", token)
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
}
