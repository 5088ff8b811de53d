package apps

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

const port = 8080 // of the application, on every node

func address(n *cluster.Node) string { return net.JoinHostPort(n.IP, strconv.Itoa(port)) }

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, context.DeadlineExceeded)
	t.Cleanup(cancel)
	return ctx
}

// findActive returns the node that is active, as soon as there is one: on a busy machine its answer may take more than one asking.
func findActive(t *testing.T, c *cluster.Cluster) *cluster.Node {
	t.Helper()
	n, err := c.WaitActive(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// application is a configuration block for an application that this test runs itself, once for all nodes.
func application(upstream, more string) func(*cluster.Node) string {
	return func(n *cluster.Node) string {
		return fmt.Sprintf("application \"app\" {\n  upstream = %q\n  listen = %q\n%s\n}\n", upstream, address(n), more)
	}
}

// start starts three nodes in front of an application, and waits until all of them reach it.
func start(t *testing.T, extra func(*cluster.Node) string, ready func(addr string) error) *cluster.Cluster {
	t.Helper()
	return startOf(t, cluster.Options{Extra: extra}, ready)
}

// startCalm is start for what is planned: raft's times are three times as long, so that a machine that is busy with other things does not turn it
// into a failover, in which P5 promises nothing.
func startCalm(t *testing.T, extra func(*cluster.Node) string, ready func(addr string) error) *cluster.Cluster {
	t.Helper()
	return startOf(t, cluster.Options{Extra: extra, Performance: calm}, ready)
}

const calm = "3"

// startOf is start with options.
func startOf(t *testing.T, options cluster.Options, ready func(addr string) error) *cluster.Cluster {
	t.Helper()
	options.LogLevel = os.Getenv("LOCUM_TEST_LEVEL")
	c := cluster.New(t, options)
	ctx := within(t, 20*time.Second)
	for _, n := range c.Nodes {
		if err := cluster.Poll(ctx, n.Name+" brings requests to the application", func() error { return ready(address(n)) }); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func answers(addr string) error {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + addr + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// counter is an application that notes which requests it carried out.
type counter struct {
	mu   sync.Mutex
	done map[string]int
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if r.Method == http.MethodPost {
		c.mu.Lock()
		c.done[r.URL.Path]++
		c.mu.Unlock()
	}
	fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
}

func (c *counter) times(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done[path]
}

func counting(t *testing.T) (*counter, string) {
	c := &counter{done: map[string]int{}}
	return c, serve(t, c)
}

// serve runs an application in this process.
func serve(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return "http://" + ln.Addr().String()
}

func drive(nodes []*cluster.Node, rate int) *load.Traffic {
	addresses := make([]string, len(nodes))
	for i, n := range nodes {
		addresses[i] = address(n)
	}
	return load.Drive(addresses, rate)
}

// judge fails the test for whatever P5 and P6 do not allow. app is nil if what it did cannot be asked for.
func judge(t *testing.T, records []load.Visit, app *counter, planned bool) {
	t.Helper()
	failed, unknown := 0, 0
	for _, r := range records {
		times := 1
		if app != nil {
			times = app.times(r.Path)
		}
		switch {
		case times > 1:
			t.Errorf("carried out %d times: %v", times, r)
		case r.OK() && r.Method == "POST" && times != 1:
			t.Errorf("acknowledged and not carried out: %v", r)
		case r.OK():
		case !planned && r.Method == "POST" && r.Status == 503 && strings.Contains(r.Body, `"processed":"unknown"`):
			unknown++
		default:
			if failed++; failed < 5 {
				t.Errorf("failed: %v", r)
			}
		}
	}
	if failed > 0 || unknown > 100 {
		t.Errorf("%d of %d failed, %d unknown", failed, len(records), unknown)
	}
	t.Logf("%d requests, %d unknown, gap %v", len(records), unknown, load.LongestGap(records))
}
