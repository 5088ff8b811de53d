package apps

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/locum-ha/locum/test/cluster"
)

// block finds the code blocks of a page.
var block = regexp.MustCompile("(?s)```([a-z]*)\n(.*?)```")

// example starts three nodes with the application of a page, exactly as the page shows it, but for the addresses of this test: all
// nodes share one host, so each listens on its own address, and the shared storage is a directory. It returns that directory.
func example(t *testing.T, page, program string, ready func(addr string) error) (*cluster.Cluster, string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("LOCUM_NO_SKIP") == "1" {
			t.Fatalf("%s is missing, and LOCUM_NO_SKIP is set: %v", program, err)
		}
		t.Skipf("%s is missing: %v", program, err)
	}
	text, err := os.ReadFile(filepath.Join(cluster.Root(), "docs", "applications", page))
	if err != nil {
		t.Fatal(err)
	}
	shared := t.TempDir()
	for _, dir := range []string{"files", "tmp"} {
		if err := os.MkdirAll(filepath.Join(shared, dir), 0o777); err != nil {
			t.Fatal(err)
		}
		// Servers that root starts as another user write there, too.
		if err := os.Chmod(filepath.Join(shared, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for dir := shared; dir != "/" && strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	here := strings.NewReplacer("/srv/shared", shared, "127.0.0.1:9000", free(t), "127.0.0.1:9001", free(t))
	config := ""
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		switch {
		case m[1] == "hcl":
			config = here.Replace(m[2])
		case m[1] == "nginx":
			write(t, filepath.Join(shared, "nginx.conf"), here.Replace(m[2]))
		case strings.HasPrefix(m[2], "listener "):
			write(t, filepath.Join(shared, "mosquitto.conf"), asListener(here.Replace(regexp.MustCompile(`listener (\d+) ([0-9.]+)`).ReplaceAllString(m[2], "listener $2:$1"))))
		}
	}
	if config == "" {
		t.Fatalf("%s shows no configuration", page)
	}
	if program == "python3" {
		_, port, _ := net.SplitHostPort(here.Replace("127.0.0.1:9000"))
		config = strings.Replace(config, `"9000"]`, fmt.Sprintf("%q]", port), 1)
	}
	listen := regexp.MustCompile(`"0\.0\.0\.0:\d+"`)
	c := start(t, func(n *cluster.Node) string {
		return listen.ReplaceAllString(config, fmt.Sprintf("%q", address(n)))
	}, ready)
	return c, shared
}

// asListener writes Mosquitto's "listener PORT ADDRESS".
func asListener(config string) string {
	return regexp.MustCompile(`listener ([0-9.]+):(\d+)`).ReplaceAllString(config, "listener $2 $1")
}

func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// crash kills the active node, and returns one that survives.
func crash(t *testing.T, c *cluster.Cluster) *cluster.Node {
	t.Helper()
	active := findActive(t, c)
	active.Kill()
	for _, n := range c.Nodes {
		if n != active {
			return n
		}
	}
	return nil
}

func get(addr, path string) (status int, body string, err error) {
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + addr + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// docs/applications/http.md
func TestPageHTTP(t *testing.T) {
	t.Parallel()
	c, shared := example(t, "http.md", "nginx", func(addr string) error {
		code, _, err := get(addr, "/healthz")
		if err == nil && code != 204 {
			err = fmt.Errorf("status %d", code)
		}
		return err
	})
	write(t, filepath.Join(shared, "files", "hello.txt"), "hello from shared storage")
	put, err := http.NewRequest("PUT", "http://"+address(c.Nodes[1])+"/upload/new.txt", strings.NewReader("uploaded"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(put)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 201 {
		t.Errorf("PUT: %d", resp.StatusCode)
	}
	next := crash(t, c)
	for path, want := range map[string]string{"/hello.txt": "hello from shared storage", "/upload/new.txt": "uploaded"} {
		if code, body, err := get(address(next), path); code != 200 || body != want || err != nil {
			t.Errorf("after a crash, %s: %d %q, %v", path, code, body, err)
		}
	}
}

// docs/applications/python.md
func TestPagePython(t *testing.T) {
	t.Parallel()
	c, shared := example(t, "python.md", "python3", answers)
	write(t, filepath.Join(shared, "files", "hello.txt"), "hello")
	next := crash(t, c)
	if code, body, err := get(address(next), "/hello.txt"); code != 200 || body != "hello" || err != nil {
		t.Errorf("after a crash: %d %q, %v", code, body, err)
	}
}

// mqtt is an MQTT client: what of version 3.1.1 the tests need.
type mqtt struct {
	io.ReadWriter
	br *bufio.Reader
}

func (m *mqtt) packet(kind byte, body ...byte) error {
	_, err := m.Write(append([]byte{kind, byte(len(body))}, body...))
	return err
}

func (m *mqtt) expect(kind byte) ([]byte, error) {
	if m.br == nil {
		m.br = bufio.NewReader(m.ReadWriter)
	}
	var head [2]byte
	if _, err := io.ReadFull(m.br, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, head[1])
	if _, err := io.ReadFull(m.br, body); err != nil {
		return nil, err
	}
	if head[0]&0xf0 != kind {
		return nil, fmt.Errorf("packet %x instead of %x", head[0], kind)
	}
	return body, nil
}

func text(s string) []byte { return append([]byte{0, byte(len(s))}, s...) }

// connect begins a session that the broker keeps.
func (m *mqtt) connect(id string) error {
	if err := m.packet(0x10, append(append(text("MQTT"), 4, 0, 0, 60), text(id)...)...); err != nil {
		return err
	}
	ack, err := m.expect(0x20)
	if err == nil && ack[1] != 0 {
		err = fmt.Errorf("refused: %d", ack[1])
	}
	return err
}

func (m *mqtt) subscribe(topic string) error {
	if err := m.packet(0x82, append(append([]byte{0, 1}, text(topic)...), 1)...); err != nil {
		return err
	}
	_, err := m.expect(0x90)
	return err
}

// publish returns once the broker has taken the message (quality of service 1).
func (m *mqtt) publish(topic, message string) error {
	if err := m.packet(0x32, append(append(text(topic), 0, 2), message...)...); err != nil {
		return err
	}
	_, err := m.expect(0x40)
	return err
}

func (m *mqtt) receive(topic string) (string, error) {
	body, err := m.expect(0x30)
	if err != nil {
		return "", err
	}
	return string(body[2+len(topic)+2:]), nil
}

func dialMQTT(addr, id string) (*mqtt, net.Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	m := &mqtt{ReadWriter: nc}
	if err := m.connect(id); err != nil {
		nc.Close()
		return nil, nil, err
	}
	return m, nc, nil
}

// docs/applications/mqtt.md: a message that the broker has taken reaches a subscriber of a kept session although the active node
// dies in between.
func TestPageMQTT(t *testing.T) {
	t.Parallel()
	c, _ := example(t, "mqtt.md", "mosquitto", func(addr string) error {
		_, nc, err := dialMQTT(addr, "ready")
		if err == nil {
			nc.Close()
		}
		return err
	})
	sub, nc, err := dialMQTT(address(c.Nodes[0]), "subscriber")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.subscribe("t"); err != nil {
		t.Fatal(err)
	}
	pub, pc, err := dialMQTT(address(c.Nodes[1]), "publisher")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if err := pub.publish("t", "one"); err != nil {
		t.Fatal(err)
	}
	if got, err := sub.receive("t"); got != "one" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	_ = sub.packet(0x40, 0, 1)
	nc.Close()
	if err := pub.publish("t", "two"); err != nil {
		t.Fatal(err)
	}
	settle(t, 1500*time.Millisecond) // the broker writes once a second
	next := crash(t, c)
	again, nc, err := dialMQTT(address(next), "subscriber")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got, err := again.receive("t"); got != "two" || err != nil {
		t.Errorf("after a crash: %q, %v", got, err)
	}
}

// frames is a WebSocket as a stream of bytes: short binary frames.
type frames struct {
	nc   net.Conn
	br   *bufio.Reader
	rest bytes.Buffer
	code int // of the close frame
}

func (f *frames) Write(p []byte) (int, error) {
	_, err := f.nc.Write(append([]byte{0x82, 0x80 | byte(len(p)), 0, 0, 0, 0}, p...))
	return len(p), err
}

func (f *frames) Read(p []byte) (int, error) {
	for f.rest.Len() == 0 {
		op, payload, err := readFrame(f.br)
		if err != nil {
			return 0, err
		}
		if op == 8 {
			f.code = int(payload[0])<<8 | int(payload[1])
			return 0, io.EOF
		}
		f.rest.Write(payload)
	}
	return f.rest.Read(p)
}

func dialWebMQTT(addr, id string) (*mqtt, *frames, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(nc, "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	f := &frames{nc: nc, br: bufio.NewReader(nc)}
	resp, err := http.ReadResponse(f.br, nil)
	if err == nil && resp.StatusCode != 101 {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	m := &mqtt{ReadWriter: f}
	if err == nil {
		err = m.connect(id)
	}
	if err != nil {
		nc.Close()
	}
	return m, f, err
}

// docs/applications/websocket.md
func TestPageWebSocket(t *testing.T) {
	t.Parallel()
	c, _ := example(t, "websocket.md", "mosquitto", func(addr string) error {
		_, f, err := dialWebMQTT(addr, "ready")
		if err == nil {
			f.nc.Close()
		}
		return err
	})
	sub, sf, err := dialWebMQTT(address(c.Nodes[0]), "s")
	if err != nil {
		t.Fatal(err)
	}
	defer sf.nc.Close()
	pub, pf, err := dialWebMQTT(address(c.Nodes[1]), "p")
	if err != nil {
		t.Fatal(err)
	}
	defer pf.nc.Close()
	if err := sub.subscribe("t"); err != nil {
		t.Fatal(err)
	}
	if err := pub.publish("t", "hello"); err != nil {
		t.Fatal(err)
	}
	if got, err := sub.receive("t"); got != "hello" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if err := c.StepDown(within(t, 20*time.Second), c.Nodes[0], "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*frames{"subscriber": sf, "publisher": pf} {
		if _, err := io.ReadAll(f); err != nil || f.code != 1012 {
			t.Errorf("%s: close code %d, %v; want 1012", name, f.code, err)
		}
	}
	_, f, err := dialWebMQTT(address(c.Nodes[2]), "s")
	if err != nil {
		t.Fatal("after the step-down:", err)
	}
	f.nc.Close()
}

// docs/applications/grpc.md: calls of all kinds, a watch that streams both ways, and a crash in between.
func TestPageGRPC(t *testing.T) {
	t.Parallel()
	dial := func(addr string) (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{Endpoints: []string{"http://" + addr}, DialTimeout: 5 * time.Second, DialOptions: []grpc.DialOption{grpc.WithNoProxy()}})
	}
	c, _ := example(t, "grpc.md", "etcd", func(addr string) error {
		cl, err := dial(addr)
		if err != nil {
			return err
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err = cl.Get(ctx, "x")
		return err
	})
	active := findActive(t, c)
	standby := c.Nodes[0]
	if standby == active {
		standby = c.Nodes[1]
	}
	cl, err := dial(address(standby))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx := within(t, 40*time.Second)
	watch := cl.Watch(ctx, "k")
	if _, err := cl.Put(ctx, "k", "one"); err != nil {
		t.Fatal(err)
	}
	seen := func(want string) {
		t.Helper()
		for resp := range watch {
			for _, e := range resp.Events {
				if string(e.Kv.Value) == want {
					return
				}
			}
		}
		t.Fatalf("the watch has ended before %q", want)
	}
	seen("one")
	active.Kill()
	if err := cluster.Poll(ctx, "a put after the crash", func() error {
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := cl.Put(once, "k", "two")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	seen("two") // the client has resumed the watch where it was
	if resp, err := cl.Get(ctx, "k"); err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "two" {
		t.Errorf("%v, %v", resp, err)
	}
}
