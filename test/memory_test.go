package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/front"
)

// P12: a body of any length passes through a standby both ways, and neither node's memory grows by 32 MiB. Two
// processes of their own, so that nothing else's memory counts.
func TestMemoryOfLargeBodies(t *testing.T) {
	size := int64(256 << 20)
	if *long {
		size = 1 << 30
	}
	dir, ip := t.TempDir(), front.RandomIP()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]*cluster.Process{}
	for role, ports := range map[string][2]int{"active": {8400, 8401}, "standby": {8500, 8501}} {
		env := fmt.Sprintf("LOCUM_TEST_FRONT=%s %s:%d %s:%d %s", role, ip, ports[0], ip, ports[1], dir)
		p, err := cluster.StartProcess(filepath.Join(dir, role+".log"), []string{env}, self)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		nodes[role] = p
	}
	url := fmt.Sprintf("http://%s:8500", ip)
	err = cluster.Poll(within(t, 20*time.Second), "the standby answers", func() error {
		response, err := http.Get(url + "/who")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	uploadZeroes(t, url, 1<<20) // buffers that stay are made
	downloadZeroes(t, url, 1<<20)
	for _, way := range []struct {
		name     string
		transfer func(*testing.T, string, int64)
	}{{"up", uploadZeroes}, {"down", downloadZeroes}} {
		before := map[string]int64{}
		for role, p := range nodes {
			before[role] = p.RSS()
			if err := p.ResetPeak(); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		way.transfer(t, url, size)
		took := time.Since(start)
		for role, p := range nodes {
			growth := p.PeakRSS() - before[role]
			t.Logf("%s: %d MiB before, %d MiB more while %d MiB went %s in %v", role, before[role]>>20, growth>>20, size>>20, way.name, took.Round(time.Millisecond))
			if growth > 32<<20 {
				t.Errorf("%s: memory grew by %d MiB while %d MiB went %s", role, growth>>20, size>>20, way.name)
			}
		}
	}
}

func uploadZeroes(t *testing.T, url string, n int64) {
	t.Helper()
	response, err := http.Post(url+"/upload", "", io.LimitReader(zeroes{}, n))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(string(answer), fmt.Sprint(n, " ")) {
		t.Fatalf("upload: %d %s", response.StatusCode, answer)
	}
}

func downloadZeroes(t *testing.T, url string, n int64) {
	t.Helper()
	response, err := http.Get(fmt.Sprintf("%s/download?n=%d", url, n))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got, err := io.Copy(io.Discard, response.Body); got != n || err != nil {
		t.Fatalf("download: %d of %d bytes, %v", got, n, err)
	}
}
