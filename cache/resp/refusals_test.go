package resp

import (
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
)

// TestTooLarge: what the cache does not take is not acknowledged, at no level (P11), and its neighbours in a pipeline are carried out.
func TestTooLarge(t *testing.T) {
	store := startCacheOf(t, cache.Config{Default: cache.Options{MaxBytes: 1 << 20}})
	c := dial(t, start(t, store, Config{}))
	value := strings.Repeat("v", 2<<20)
	c.want("SET small 1", "+OK")
	for _, level := range []string{"QUORUM", "ONCE", "LEADER", "DIRECT"} {
		c.want("LOCUM.ACK "+level, "+OK")
		for _, args := range [][]string{
			{"SET", "k", value}, {"SET", "k", value, "EX", "9"}, {"SETEX", "k", "9", value}, {"SET", "k", value, "GET"}, {"SETNX", "k", value},
			{"GETSET", "k", value}, {"MSET", "k", value}, {"MSETNX", "k", value}, {"APPEND", "k", value},
		} {
			if got := c.do(args...); !strings.HasPrefix(got, "-ERR string exceeds") {
				t.Errorf("%s at %s: %.80s", args[0], level, got)
			}
		}
		c.want("EXISTS k", ":0", "LOCUM.ACK QUORUM", "+OK")
	}
	key := strings.Repeat("k", cache.MaxKey+1)
	c.send(encode("SET", "a", "1") + encode("SET", key, "x") + encode("SET", "b", "2"))
	for i, want := range []string{"+OK", "-ERR a key of", "+OK"} {
		if got := c.receive(); !strings.HasPrefix(got, want) {
			t.Errorf("command %d of the pipeline: %.80s", i, got)
		}
	}
	if got := c.do("WATCH", "a", key); !strings.HasPrefix(got, "-ERR a key of") {
		t.Errorf("WATCH: %.80s", got)
	}
	c.want("MULTI", "+OK")
	for range 2 {
		if got := c.do("SET", key, "x"); got != "+QUEUED" {
			t.Errorf("in MULTI: %.80s", got)
		}
	}
	if got := c.do("EXEC"); !strings.HasPrefix(got, "*[-ERR a key of") {
		t.Errorf("EXEC: %.80s", got)
	}
}

// TestSilentStranger: who does not authenticate keeps no client's place (P9, P12); who has, may be silent.
func TestSilentStranger(t *testing.T) {
	address := start(t, newFake(), Config{Password: "secret", AuthTimeout: 300 * time.Millisecond, MaxConns: 2})
	friend := dial(t, address)
	friend.want("AUTH secret", "+OK")
	stranger := dial(t, address)
	stranger.want("PING", "-NOAUTH Authentication required.")
	if got := stranger.receive(); got != "EOF" {
		t.Errorf("a stranger after the time to authenticate: %s", got)
	}
	friend.want("PING", "+PONG")
}
