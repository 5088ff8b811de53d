package resp

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
)

// want checks answers, one command and its answer after the other.
func (c *client) want(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := c.do(split(pairs[i])...); got != pairs[i+1] {
			c.t.Errorf("%s: %s, want %s", pairs[i], got, pairs[i+1])
		}
	}
}

// TestAuth: AUTH is required when a password is configured, and until then next to nothing is possible (issue 6, 8; P12).
func TestAuth(t *testing.T) {
	addr := start(t, newFake(), Config{Password: "secret"})
	c := dial(t, addr)
	c.want(
		"GET k", "-NOAUTH Authentication required.",
		"MULTI", "-NOAUTH Authentication required.",
		"NOSUCH", `-ERR unknown command 'NOSUCH', with args beginning with: `,
		"AUTH wrong", "-"+wrongPassword,
		"AUTH default wrong", "-"+wrongPassword,
		"AUTH other secret", "-"+wrongPassword,
		"PING", "-NOAUTH Authentication required.",
		"AUTH secret", "+OK",
		"PING", "+PONG",
		"RESET", "+RESET",
		"PING", "-NOAUTH Authentication required.",
		"AUTH default secret", "+OK",
	)
	d := dial(t, addr)
	if got := d.do("HELLO", "3"); !strings.HasPrefix(got, "-NOAUTH HELLO must be called with the client already authenticated") {
		t.Errorf("HELLO: %s", got)
	}
	if got := d.do("HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me"); !strings.HasPrefix(got, "%[") || !strings.Contains(got, `$"proto" :3`) {
		t.Errorf("HELLO with AUTH: %s", got)
	}
	d.want("CLIENT GETNAME", `$"me"`)
	for _, raw := range []string{"*11\r\n", "*1\r\n$16385\r\n"} {
		e := dial(t, addr)
		e.send(raw)
		if got := e.receive(); !strings.HasPrefix(got, "-ERR Protocol error: unauthenticated") || e.receive() != "EOF" {
			t.Errorf("%q before AUTH: %s", raw, got)
		}
	}
}

// TestAddress: beyond loopback a password is required (issue 6, 8).
func TestAddress(t *testing.T) {
	for address, ok := range map[string]bool{"": true, "127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true, "0.0.0.0:0": false, ":0": false, "10.0.0.1:1": false, "nonsense": false} {
		if _, err := New(newFake(), Config{Address: address}); (err == nil) != ok {
			t.Errorf("%q without a password: %v", address, err)
		}
	}
	if _, err := New(newFake(), Config{Address: "0.0.0.0:0", Password: "x"}); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprintf("%v %+v %#v", Secret("abc"), Config{Password: "abc"}, Config{Password: "abc"}); strings.Contains(got, "abc") {
		t.Errorf("the password is shown: %s", got)
	}
}

// TestPipelineIsOneStep: writes that stand behind one another are one step of the log, in their order, and reads see what stood before
// them.
func TestPipelineIsOneStep(t *testing.T) {
	store := newFake()
	c := dial(t, start(t, store, Config{}))
	c.send(encode("SET", "a", "1") + encode("INCR", "a") + encode("APPEND", "a", "0") + encode("GET", "a") + encode("DEL", "a", "a") + encode("SET", "b", "x", "EX", "bad") + encode("GET", "a"))
	for _, want := range []string{"+OK", ":2", ":2", `$"20"`, ":1", "-ERR value is not an integer or out of range", "$-1"} {
		if got := c.receive(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	if store.steps != 2 {
		t.Errorf("%d steps, want 2: what stands before the first GET, and after", store.steps)
	}
}

// TestLevels: LOCUM.ACK is for plain writes; whatever depends on what is stored is carried out at quorum (design, "The cache's levels").
func TestLevels(t *testing.T) {
	store := newFake()
	c := dial(t, start(t, store, Config{}))
	c.want("LOCUM.ACK", `$"quorum"`, "LOCUM.ACK most", "-ERR unknown level: write quorum, once, leader or direct",
		"LOCUM.ACK Leader", "+OK", "LOCUM.ACK", `$"leader"`,
		"SET a 1", "+OK", "SETEX a 10 1", "+OK", "SET a 2 NX", "$-1", "INCR a", ":2", "SET a 3 KEEPTTL", "+OK", "GETSET a 4", `$"3"`, "DEL a", ":1",
		"WAIT 1 0", ":0", "LOCUM.ACK once", "+OK", "MSET a 1 b 2", "+OK", "RESET", "+RESET", "SET a 1", "+OK")
	store.mu.Lock()
	defer store.mu.Unlock()
	l, q := LevelLeader, LevelQuorum
	if got, want := fmt.Sprint(store.levels), fmt.Sprint([]Level{l, l, q, q, q, q, q, LevelOnce, q}); got != want {
		t.Errorf("levels %s, want %s", got, want)
	}
}

// TestWait: a connection below quorum is told of others that have its writes only when they do, direct puts too.
func TestWait(t *testing.T) {
	store := newFake()
	store.replicas, store.unsettled = 1, ErrUnknown
	c := dial(t, start(t, store, Config{}))
	c.want("SET a 1", "+OK", "WAIT 1 0", ":1", "LOCUM.ACK direct", "+OK", "SET a 2", "+OK", "WAIT 1 10", ":0", "WAIT 0 0", ":1", "WAIT 1 0", ":0")
	store.mu.Lock()
	store.unsettled = nil
	store.mu.Unlock()
	c.want("WAIT 1 0", ":1", "WAIT 1 0", ":1")
	store.mu.Lock()
	if store.settled != 3 {
		t.Errorf("waited %d times, want 3", store.settled)
	}
	store.fail, store.unsettled = ErrUnknown, ErrUnknown
	store.mu.Unlock()
	c.want("LOCUM.ACK quorum", "+OK")
	if got := c.do("SET", "a", "3"); !strings.HasPrefix(got, "-UNKNOWN ") {
		t.Errorf("SET: %s", got)
	}
	c.want("WAIT 1 0", ":0")

	node, err := cache.New(cache.Config{Hosts: []string{"a:1", "b:1", "c:1"}, Self: "a:1", AuthToken: "0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	if n := NewShared(node, 1, "a:1", "test").Replicas(); n != 0 {
		t.Errorf("without a quorum %d others have what was written", n)
	}
}

// TestConditionalEqual: what Redis 7.0 does not have yet: SET … IFEQ and DELIFEQ, as later ones and Valkey do.
func TestConditionalEqual(t *testing.T) {
	c := dial(t, start(t, startCache(t), Config{}))
	c.want("SET k a", "+OK", "SET k b IFEQ x", "$-1", "SET k b IFEQ a", "+OK", "SET k c IFEQ b GET", `$"b"`, "SET k d IFEQ b GET", `$"c"`,
		"SET none v IFEQ a", "$-1", "SET k v IFEQ", "-ERR syntax error", "SET k v IFEQ a NX", "-ERR syntax error",
		"DELIFEQ k x", ":0", "DELIFEQ k c", ":1", "DELIFEQ k c", ":0", "EXISTS k none", ":0")
}

// TestStoreErrors: what was not done and what nobody knows can be told apart (issue 6, 3 and 6).
func TestStoreErrors(t *testing.T) {
	store := newFake()
	c := dial(t, start(t, store, Config{}))
	for err, prefix := range map[error]string{ErrNoQuorum: "-CLUSTERDOWN ", ErrUnknown: "-UNKNOWN ", ErrNotDone: "-TRYAGAIN ", ErrTooLarge: "-ERR string exceeds"} {
		store.mu.Lock()
		store.fail = fmt.Errorf("layer: %w", err)
		store.mu.Unlock()
		for _, line := range []string{"SET a 1", "GET a", "MGET a b", "EXISTS a", "STRLEN a", "TTL a", "TYPE a", "INCR a", "DEL a", "SCAN 0", "DBSIZE", "FLUSHDB", "FLUSHALL", "WATCH a", "PUBLISH a b"} {
			if got := c.do(split(line)...); !strings.HasPrefix(got, prefix) {
				t.Errorf("%s with %v: %s", line, err, got)
			}
		}
		c.want("MULTI", "+OK", "SET a 1", "+QUEUED")
		if got := c.do("EXEC"); !strings.HasPrefix(got, prefix) {
			t.Errorf("EXEC with %v: %s", err, got)
		}
	}
}

// TestBounds: connections, arguments, transactions and what waits for a subscriber are bounded (P12).
func TestBounds(t *testing.T) {
	store := newFake()
	addr := start(t, store, Config{MaxConns: 2, MaxCommand: 1000, MaxArgs: 5, MaxQueued: 2000})
	c, d := dial(t, addr), dial(t, addr)
	c.want("PING", "+PONG")
	d.want("PING", "+PONG")
	if got := dial(t, addr).receive(); got != "-ERR max number of clients reached" {
		t.Errorf("third connection: %s", got)
	}
	c.want("MULTI", "+OK", "SET a "+strings.Repeat("x", 900), "+QUEUED", "SET a "+strings.Repeat("x", 900), "+QUEUED")
	if got := c.do("SET", "a", strings.Repeat("x", 900)); got != "-ERR the transaction is too large" {
		t.Errorf("third command: %s", got)
	}
	c.want("EXEC", "-EXECABORT Transaction discarded because of previous errors.")
	c.want("WATCH "+strings.Repeat("x", 900), "+OK", "WATCH "+strings.Repeat("y", 900), "+OK")
	c.want("WATCH "+strings.Repeat("z", 900), "-ERR too many watched keys", "UNWATCH", "+OK")

	// A subscriber that does not read is closed, and nobody else waits for it.
	d.want("SUBSCRIBE ch", `*[$"subscribe" $"ch" :1]`)
	for range 20000 {
		if got := c.do("PUBLISH", "ch", strings.Repeat("m", 900)); got == ":0" {
			break
		}
	}
	c.want("PUBLISH ch x", ":0")
	c.send("*6\r\n")
	if got := c.receive(); got != "-ERR Protocol error: invalid multibulk length" {
		t.Errorf("six arguments: %s", got)
	}
	e := dial(t, addr)
	e.send("*1\r\n$1001\r\n")
	if got := e.receive(); got != "-ERR Protocol error: invalid bulk length" {
		t.Errorf("long argument: %s", got)
	}
}

// TestLostMessages: a subscriber that may have missed something is disconnected (issue 6, 5: "a clear you missed some").
func TestLostMessages(t *testing.T) {
	store := newFake()
	c := dial(t, start(t, store, Config{}))
	c.want("SUBSCRIBE ch", `*[$"subscribe" $"ch" :1]`)
	store.mu.Lock()
	for _, lost := range store.lost {
		lost()
	}
	store.mu.Unlock()
	if got := c.receive(); got != "EOF" {
		t.Errorf("after a loss: %s", got)
	}
}

// TestMessages: RESP2 gets arrays, RESP3 pushes, between answers and never within one.
func TestMessages(t *testing.T) {
	addr := start(t, startCache(t), Config{})
	sub, pub := dial(t, addr), dial(t, addr)
	sub.do("HELLO", "3")
	sub.want("SUBSCRIBE a b", `>[$"subscribe" $"a" :1]`)
	if got := sub.receive(); got != `>[$"subscribe" $"b" :2]` {
		t.Error(got)
	}
	go func() {
		for i := range 100 {
			pub.send(encode("PUBLISH", "a", strconv.Itoa(i)))
		}
	}()
	next, pongs := 0, 0
	for next < 100 || pongs < 10 {
		if pongs < 10 && next%10 == 9-pongs%10 {
			sub.send(encode("PING"))
		}
		if pongs < 10 && next == 100 {
			sub.send(encode("PING"))
		}
		switch got := sub.receive(); got {
		case "+PONG":
			pongs++
		case fmt.Sprintf(`>[$"message" $"a" $"%d"]`, next):
			next++
		default:
			t.Fatalf("%s, want message %d", got, next)
		}
	}
}

// TestClientList: who looks for idle clients does not find one that only gets and sets.
func TestClientList(t *testing.T) {
	s, err := New(newFake(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	c := newConn(s, theirs)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.serve(t.Context())
	}()
	busy := &client{t, ours, bufio.NewReader(ours)}
	for _, words := range [][]string{{"SET", "a", "1"}, {"GET", "a"}, {"INCR", "a"}, {"PING"}} {
		c.spoke.Add(-int64(time.Hour))
		if line := c.line(); !strings.Contains(line, " idle=36") {
			t.Fatalf("it said nothing for an hour: %s", line)
		}
		busy.do(words...)
		if line := c.line(); strings.Contains(line, " idle=36") || !strings.Contains(line, " cmd="+strings.ToLower(words[0])+" ") {
			t.Fatalf("after %q: %s", words, line)
		}
	}
	_ = ours.Close()
	<-ended
}

// TestReplyModes: CLIENT REPLY OFF, SKIP and ON.
func TestReplyModes(t *testing.T) {
	c := dial(t, start(t, newFake(), Config{}))
	c.send(encode("CLIENT", "REPLY", "OFF") + encode("SET", "a", "1") + encode("GET", "a") + encode("CLIENT", "REPLY", "ON") + encode("CLIENT", "REPLY", "SKIP") + encode("INCR", "a") + encode("GET", "a"))
	for _, want := range []string{"+OK", `$"2"`} {
		if got := c.receive(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, mode := range []string{"OFF", "SKIP"} { // SUBSCRIBE sends its answer at once, and with it what stands before it: once
		c := dial(t, start(t, newFake(), Config{}))
		c.send(encode("SET", "a", "1") + encode("GET", "a") + encode("CLIENT", "REPLY", mode) + encode("SUBSCRIBE", "ch") +
			encode("UNSUBSCRIBE", "ch") + encode("CLIENT", "REPLY", "ON") + encode("ECHO", "after"))
		want := []string{"+OK", `$"1"`, `*[$"subscribe" $"ch" :1]`, `*[$"unsubscribe" $"ch" :0]`, "+OK", `$"after"`}
		if mode == "OFF" {
			want = append(want[:3], want[4:]...)
		}
		for _, want := range want {
			if got := c.receive(); got != want {
				t.Errorf("%s: %s, want %s", mode, got, want)
			}
		}
	}
}

// TestEnd: Serve closes every connection and returns after all its goroutines have.
func TestEnd(t *testing.T) {
	s, err := New(newFake(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	c, d := dial(t, ln.Addr().String()), dial(t, ln.Addr().String())
	c.want("SUBSCRIBE a", `*[$"subscribe" $"a" :1]`)
	d.want("PING", "+PONG", "CLIENT KILL ID 1", ":1", "QUIT", "+OK")
	if got := d.receive(); got != "EOF" {
		t.Errorf("after QUIT: %s", got)
	}
	if got := c.receive(); got != "EOF" {
		t.Errorf("after KILL: %s", got)
	}
	e := dial(t, ln.Addr().String())
	e.want("PING", "+PONG")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve does not end")
	}
	if got := e.receive(); got != "EOF" {
		t.Errorf("after the end: %s", got)
	}
}
