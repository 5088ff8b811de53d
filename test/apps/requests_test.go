package apps

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// dialCounter counts a client's connections.
type dialCounter struct{ n atomic.Int32 }

func (d *dialCounter) client(t *testing.T, choose func(*http.Protocols)) *http.Client {
	protocols := new(http.Protocols)
	choose(protocols)
	tr := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		d.n.Add(1)
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func post(n *cluster.Node, path, key, body string) (status int, answer string, header http.Header, err error) {
	req, err := http.NewRequest("POST", "http://"+address(n)+path, strings.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("Idempotency-Key", `"`+key+`"`)
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

// design.md "Keyed requests": the same key again, at any node, before and after a change of the active node.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	var orders atomic.Int32
	hang := make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" {
			return
		}
		n := orders.Add(1)
		if r.URL.Path == "/slow" {
			<-hang
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "order %d for %s", n, body)
	}))
	defer app.Close()
	defer close(hang)
	c := start(t, application(app.URL, ""), answers)
	check := func(n *cluster.Node, path, key, body string, status int, want string) {
		t.Helper()
		code, answer, _, err := post(n, path, key, body)
		if err != nil || code != status || !strings.Contains(answer, want) {
			t.Errorf("key %s at %s: %d %q, %v; want %d %q", key, n.Name, code, answer, err, status, want)
		}
	}
	for _, n := range c.Nodes {
		check(n, "/", "k1", "tea", 201, "order 1 for tea")
	}
	check(c.Nodes[1], "/", "k1", "milk", 422, "another request")
	if err := c.StepDown(within(t, 20*time.Second), c.Nodes[0], "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	check(c.Nodes[2], "/", "k1", "tea", 201, "order 1 for tea")
	// In flight at a crash: nobody knows, whoever asks, and it is not carried out a second time.
	active := findActive(t, c)
	standby := c.Nodes[0]
	if standby == active {
		standby = c.Nodes[1]
	}
	first := make(chan string, 1)
	go func() {
		code, answer, _, err := post(standby, "/slow", "k2", "rum")
		first <- fmt.Sprint(code, " ", answer, " ", err)
	}()
	if err := cluster.Poll(within(t, 5*time.Second), "the order is in flight", func() error {
		if orders.Load() != 2 {
			return fmt.Errorf("%d orders", orders.Load())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	check(standby, "/slow", "k2", "rum", 409, "being carried out")
	active.Kill()
	if got := <-first; !strings.Contains(got, `"processed":"unknown"`) {
		t.Errorf("the request in flight: %s", got)
	}
	check(standby, "/slow", "k2", "rum", 503, `"processed":"unknown"`)
	check(standby, "/", "k1", "tea", 201, "order 1 for tea")
	if n := orders.Load(); n != 2 {
		t.Errorf("carried out %d times, want 2", n)
	}
}

// Issue 5, point 8, and interfaces.md §5: 307 to the application's address on the active node, path and query untouched.
func TestRedirectMode(t *testing.T) {
	t.Parallel()
	_, url := counting(t)
	c := start(t, application(url, "  mode = \"redirect\""), func(addr string) error {
		resp, err := http.Get("http://" + addr + "/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != 200 {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
		}
		return err
	})
	active := findActive(t, c)
	d := &dialCounter{}
	client := d.client(t, func(p *http.Protocols) { p.SetHTTP1(true) })
	for _, n := range c.Nodes {
		resp, err := client.Post("http://"+address(n)+"/a%2Fb?c=%20d", "", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := 307
		if n == active {
			want = 200
		}
		if resp.StatusCode != want || want == 307 && resp.Header.Get("Location") != "http://"+address(active)+"/a%2Fb?c=%20d" {
			t.Errorf("%s: %d, Location %q", n.Name, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}
