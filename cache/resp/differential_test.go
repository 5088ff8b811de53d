package resp

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/internal/storeserver"
)

// startRedis starts the real thing, with nothing on disk.
func startRedis(t *testing.T, args ...string) string {
	t.Helper()
	path := storeserver.Program(t, "redis-server", "redis-server")
	addr := storeserver.Loopback(storeserver.FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	dir := t.TempDir()
	storeserver.Launch(t, storeserver.Spec{
		Name: "redis", Dir: dir, Path: path,
		Args: append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir}, args...),
		Ready: func(ctx context.Context) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err == nil {
				err = conn.Close()
			}
			return err
		},
	})
	return addr
}

// scripts are command lines; words are split at spaces, and 'two words' is one. A line that begins with "~" is compared without its
// numbers, which depend on the clock.
var scripts = map[string]string{
	"strings": `
		SET k v
		GET k
		get k
		GET none
		SET k v2 NX
		SET k v2 XX
		SET none v XX
		SET k v3 GET
		SET none2 v GET
		SET k v4 NX GET
		SET none3 v NX GET
		SET k v XX GET
		SET k v KEEPTTL
		SET k v EX 100
		~TTL k
		SET k v2 KEEPTTL
		~TTL k
		SET k v
		TTL k
		SET k v PX 100000
		~PTTL k
		SET k v EX 0
		SET k v EX -1
		SET k v EX abc
		SET k v EX
		SET k v EX 1 PX 1
		SET k v EX 1 KEEPTTL
		SET k v KEEPTTL EX 1
		SET k v NX XX
		SET k v XX NX
		SET k v NX NX
		SET k v BAD
		SET k v EX 9223372036854775807
		SET k v PX 9223372036854775807
		SET k v EXAT 4000000000
		EXPIRETIME k
		SET k v PXAT 4000000000000
		EXPIRETIME k
		SET k v EXAT 1
		GET k
		SET k
		SET
		SETEX k 100 v
		~TTL k
		SETEX k 0 v
		SETEX k -5 v
		SETEX k abc v
		PSETEX k 100000 v
		~PTTL k
		PSETEX k 0 v
		SETNX k new
		SETNX new new
		GETSET k other
		GETSET absent first
		TTL k
		GETDEL absent
		GETDEL absent
		STRLEN k
		STRLEN none
		APPEND k tail
		APPEND fresh head
		GET k
		MSET a 1 b 2 c 3
		MGET a b c none a
		MSET a 1 b
		MSET a
		MSETNX a 1 z 2
		MSETNX x 1 y 2
		MSETNX x 1 y
		MGET x y z
		MGET
		SET '' empty
		GET ''
		SET e ''
		GET e
		STRLEN e`,
	"getex": `
		SET k v
		GETEX k
		GETEX k EX 100
		~TTL k
		GETEX k PERSIST
		TTL k
		GETEX k PX 100000
		~PTTL k
		GETEX k EXAT 4000000000
		EXPIRETIME k
		GETEX k PXAT 4000000000000
		EXPIRETIME k
		GETEX k EX 0
		GETEX k EX abc
		GETEX k BAD
		GETEX k EX
		GETEX k EX 1 PERSIST
		GETEX k PERSIST EX 1
		GETEX none EX 1
		GETEX none
		GETEX k EXAT 1
		GET k`,
	"counters": `
		INCR n
		INCR n
		DECR n
		INCRBY n 10
		DECRBY n 3
		INCRBY n -20
		DECRBY n -5
		GET n
		SET n 9223372036854775807
		INCR n
		DECR n
		SET n -9223372036854775808
		DECR n
		INCRBY n -1
		DECRBY n -9223372036854775808
		SET n abc
		INCR n
		SET n ' 1'
		INCR n
		SET n 1.5
		INCR n
		SET n 01
		INCR n
		SET n ''
		INCR n
		INCRBY n abc
		INCRBY n 1.0
		INCRBY n 9223372036854775808
		INCRBY n
		SET t 5 EX 100
		INCR t
		~TTL t
		APPEND t 1
		~TTL t
		INCR t
		INCR a b`,
	"keys": `
		MSET a 1 b 2 c 3
		EXISTS a
		EXISTS a a none
		EXISTS
		TYPE a
		TYPE none
		DBSIZE
		DEL a none
		DEL a
		DEL
		UNLINK b b
		DBSIZE
		SELECT 1
		DBSIZE
		SET a other
		SELECT 0
		GET a
		FLUSHDB
		DBSIZE
		SELECT 1
		GET a
		FLUSHALL
		GET a
		FLUSHDB ASYNC
		FLUSHDB SYNC
		FLUSHDB BAD
		FLUSHALL BAD
		SELECT 16
		SELECT -1
		SELECT abc
		SELECT
		SELECT 0`,
	"expiry": `
		SET k v
		EXPIRE k 100
		~TTL k
		EXPIRE k 200 NX
		EXPIRE k 200 XX
		EXPIRE k 100 GT
		EXPIRE k 300 GT
		EXPIRE k 400 LT
		EXPIRE k 50 LT
		~TTL k
		EXPIRE k 10 NX GT
		EXPIRE k 10 NX XX
		EXPIRE k 10 GT LT
		EXPIRE k 10 BAD
		EXPIRE k 40 XX LT
		EXPIRE k 400 XX GT
		PERSIST k
		PERSIST k
		PERSIST none
		TTL k
		EXPIRE k 100 GT
		EXPIRE k 100 XX
		EXPIRE k 100 XX LT
		EXPIRE k 100 LT
		~TTL k
		PEXPIRE k 100000
		~PTTL k
		EXPIREAT k 4000000000
		EXPIRETIME k
		PEXPIREAT k 4000000000000
		EXPIRETIME k
		EXPIRE none 1
		EXPIRE k abc
		EXPIRE k 9223372036854775807
		EXPIRE k -9223372036854775807
		PEXPIRE k 9223372036854775807
		EXPIRE k
		TTL none
		PTTL none
		EXPIRETIME none
		TTL
		SET k v
		PTTL k
		EXPIRETIME k
		EXPIRE k 0
		GET k
		SET k v
		EXPIRE k -1
		EXISTS k
		SET k v
		EXPIREAT k 1
		EXISTS k
		SET k v
		PEXPIRE k -5
		EXISTS k`,
	"transactions": `
		MULTI
		SET a 1
		INCR a
		GET a
		MGET a none
		DEL none
		TTL a
		EXPIRE a 100
		PING
		ECHO hi
		EXEC
		EXEC
		DISCARD
		MULTI
		SET a 5
		DISCARD
		GET a
		MULTI
		NOSUCH
		SET a 6
		EXEC
		MULTI
		SET a
		EXEC
		MULTI
		MULTI
		EXEC
		SET a x
		MULTI
		INCR a
		SET b 2
		SET b v EX abc
		EXEC
		GET b
		WATCH a
		MULTI
		GET a
		EXEC
		WATCH a
		SET a changed
		MULTI
		SET a mine
		EXEC
		GET a
		WATCH a none
		UNWATCH
		SET a 3
		MULTI
		GET a
		EXEC
		WATCH none9
		SET none9 1
		MULTI
		EXEC
		MULTI
		EXEC
		MULTI
		STRLEN a
		EXISTS a none
		TYPE a
		GETSET a 4
		GETDEL a
		APPEND a x
		SETNX a y
		FLUSHDB
		EXISTS a
		EXEC
		MULTI
		WATCH a
		EXEC
		WATCH
		EXEC now`,
	"connection": `
		PING
		PING hi
		PING a b
		ECHO hi
		ECHO
		CLIENT GETNAME
		CLIENT SETNAME me
		CLIENT GETNAME
		CLIENT SETNAME 'not good'
		CLIENT NOSUCH
		CLIENT
		CLIENT SETNAME
		CLIENT NO-EVICT ON
		CLIENT NO-EVICT MAYBE
		CLIENT REPLY MAYBE
		CLIENT KILL ID 99999
		CLIENT KILL 1.2.3.4:5
		CLIENT KILL ID abc
		AUTH x
		AUTH default x
		AUTH other x
		AUTH a b c
		NOSUCH
		NOSUCH a b
		nosuch 'a b' c
		COMMAND GETKEYS SET k v
		COMMAND GETKEYS MSET a 1 b 2
		COMMAND GETKEYS NOSUCH a
		COMMAND GETKEYS PING
		COMMAND GETKEYS GET
		COMMAND INFO nosuch
		COMMAND NOSUCH
		CONFIG GET save
		CONFIG GET appendonly
		CONFIG GET nosuch
		CONFIG GET
		HELLO 4
		HELLO abc
		HELLO 2 NOSUCH
		HELLO 2 AUTH default
		WAIT a 0
		WAIT 0 a
		WAIT 0 -1
		WAIT 0
		PUBLISH none x
		PUBLISH a
		SCAN abc
		SCAN 0
		SCAN 0 COUNT 0
		SCAN 0 COUNT abc
		SCAN 0 NOSUCH
		SCAN 0 COUNT
		RESET
		RESET now
		PING`,
	"channels": `
		SUBSCRIBE a
		SUBSCRIBE b a
		PING
		PING hi
		UNSUBSCRIBE b
		UNSUBSCRIBE nosuch
		UNSUBSCRIBE
		UNSUBSCRIBE
		GET k
		SUBSCRIBE
		SUBSCRIBE c
		RESET
		GET k`,
}

// split makes words of a line of a script.
func split(line string) []string {
	words, ok := splitInline([]byte(line))
	if !ok {
		panic("bad line in a script: " + line)
	}
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = string(word)
	}
	return out
}

// pair is a client of each server.
type pair struct{ ours, theirs *client }

func (p pair) do(t *testing.T, words []string, loose bool) {
	t.Helper()
	got, want := p.answers(words)
	if loose {
		got, want = withoutNumber(got), withoutNumber(want)
	}
	if got != want {
		t.Errorf("%q:\n\tlocum: %s\n\tredis: %s", words, got, want)
	}
}

// answers reads one answer of each, but as many as (UN)SUBSCRIBE has channels.
func (p pair) answers(words []string) (got, want string) {
	n := 1
	if strings.HasSuffix(words[0], "SUBSCRIBE") {
		n = max(1, len(words)-1)
		if len(words) == 1 && words[0] == "UNSUBSCRIBE" {
			n = 1
		}
	}
	p.ours.send(encode(words...))
	p.theirs.send(encode(words...))
	for range n {
		got += p.ours.receive()
		want += p.theirs.receive()
	}
	return got, want
}

func withoutNumber(answer string) string {
	if n, err := strconv.Atoi(strings.TrimPrefix(answer, ":")); err == nil && n > 0 {
		return ":n"
	}
	return answer
}

// TestLikeRedis sends the same commands to a real Redis and compares every answer, in both versions of the protocol (issue: "Redis's
// own words for errors"), at a cache of one host, and of three, through the leader and through a follower.
func TestLikeRedis(t *testing.T) {
	redis := startRedis(t)
	leader, follower := startThree(t)
	stores := map[string]Store{"fake": newFake(), "cache": startCache(t), "leader": leader, "follower": follower}
	for store, of := range stores {
		locum := start(t, of, Config{})
		for name, script := range scripts {
			if store == "fake" || store == "cache" { // three hosts have replicas, this Redis has none
				script += "\nWAIT 0 0"
			}
			for _, proto := range []string{"2", "3"} {
				t.Run(store+"/"+name+"/RESP"+proto, func(t *testing.T) {
					p := pair{dial(t, locum), dial(t, redis)}
					p.play(t, script, proto)
				})
			}
		}
	}
}

// play sends a script, line by line.
func (p pair) play(t *testing.T, script, proto string) {
	t.Helper()
	p.do(t, []string{"FLUSHALL"}, false)
	p.ours.do("HELLO", proto) // it shows version and id
	p.theirs.do("HELLO", proto)
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		line, loose := strings.CutPrefix(strings.TrimSpace(line), "~")
		p.do(t, split(line), loose)
	}
}

// startCache runs a cache of one host for as long as the test does.
func startCache(t testing.TB) *Shared { return startCacheOf(t, cache.Config{}) }

func startCacheOf(t testing.TB, cfg cache.Config) *Shared {
	t.Helper()
	node, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("cache: %v", err)
		}
	})
	for health, changed := node.HealthChanges(); health.Status != cache.Good; health, changed = node.HealthChanges() {
		<-changed
	}
	return NewShared(node, 16, "self:0", "test")
}

// TestProtocolErrorsLikeRedis sends what is not RESP, and inline commands; where Redis ends the connection, so must Locum.
func TestProtocolErrorsLikeRedis(t *testing.T) {
	redis := startRedis(t)
	locum := start(t, newFake(), Config{})
	for _, raw := range []string{
		"PING\r\n", "PING\n", "  PING  \r\n", "\r\nPING\r\n", "SET k \"a\\x41\\n\"\r\nGET k\r\n", "SET k 'it\\'s'\r\nGET k\r\n",
		"SET k \"open\r\n", "SET k \"a\"b\r\n", "GET k extra\r\n",
		"*0\r\nPING\r\n", "*-1\r\nPING\r\n", "*1\r\n$4\r\nPING\r\n", "*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
		"*x\r\n", "*1\r\n:4\r\n", "*1\r\n$-1\r\n", "*1\r\n$x\r\n", "*99999999999\r\n", "*1\r\n$99999999999\r\n", "*+1\r\n", "*01\r\n",
		"*1\r\n$04\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n*", "*1\r\nPING\r\n",
		strings.Repeat("x", 1<<20),
	} {
		ours, theirs := dial(t, locum), dial(t, redis)
		for _, c := range []*client{ours, theirs} {
			c.send(raw)
			// What is complete is answered; then a second command shows whether the connection lives.
			_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = c.conn.Write([]byte("*1\r\n$7\r\nDISCARD\r\n"))
		}
		for range 4 {
			got, want := ours.receive(), theirs.receive()
			if got != want {
				t.Errorf("%.60q:\n\tlocum: %s\n\tredis: %s", raw, got, want)
			}
			if got == "EOF" || want == "EOF" || strings.HasPrefix(got, "-ERR DISCARD") {
				break
			}
		}
	}
}
