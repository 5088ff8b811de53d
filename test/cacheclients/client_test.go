package cacheclients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/locum-ha/locum/test/cluster"
)

// TestClients runs each client against one cache of three nodes (issue 6, 8).
func TestClients(t *testing.T) {
	c := cluster.NewCache(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, proto := range []int{2, 3} {
		t.Run(fmt.Sprintf("go-redis/RESP%d", proto), func(t *testing.T) { goRedis(ctx, t, c, proto) })
	}
	t.Run("redis-cli", func(t *testing.T) { redisCLI(ctx, t, c) })
	t.Run("ioredis", func(t *testing.T) {
		out, err := script(ctx, t, "ioredis.js", port(c.Nodes[1].RESP), port(c.Nodes[2].RESP)).CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// goRedis uses what go-redis offers over the commands that there are.
func goRedis(ctx context.Context, t *testing.T, c *cluster.Cache, proto int) {
	at := func(i int) *redis.Client {
		client := redis.NewClient(&redis.Options{Addr: c.Nodes[i].RESP, Protocol: proto, ClientName: "tester"})
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	a, b := at(0), at(1)
	want := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v %v, want %v", what, got, err, want)
		}
	}
	key := func(name string) string { return fmt.Sprintf("go%d:%s", proto, name) }
	got, err := a.Set(ctx, key("a"), "value", time.Hour).Result()
	want("Set", got, "OK", err)
	got, err = a.Get(ctx, key("a")).Result()
	want("Get", got, "value", err)
	if _, err := a.Get(ctx, key("none")).Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("Get of nothing: %v", err)
	}
	ttl, err := a.TTL(ctx, key("a")).Result()
	want("TTL", ttl > 59*time.Minute && ttl <= time.Hour, true, err)
	set, err := b.SetNX(ctx, key("a"), "other", 0).Result()
	want("SetNX", set, false, err)
	n, err := a.IncrBy(ctx, key("n"), 5).Result()
	want("IncrBy", n, 5, err)
	values, err := a.MGet(ctx, key("a"), key("none")).Result()
	want("MGet", values, []any{"value", nil}, err)
	old, err := a.GetDel(ctx, key("a")).Result()
	want("GetDel", old, "value", err)

	// A pipeline, and optimistic locking: one hundred increments by ten clients, none lost.
	commands, err := a.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 100 {
			p.Set(ctx, key(fmt.Sprintf("p%03d", i)), i, 0)
		}
		p.Get(ctx, key("p042"))
		return nil
	})
	want("pipeline", commands[100].(*redis.StringCmd).Val(), "42", err)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for done := 0; done < 10; {
				if err := increment(ctx, []*redis.Client{a, b}[i%2], key("counter")); err == nil {
					done++
				} else if !errors.Is(err, redis.TxFailedErr) {
					t.Errorf("transaction: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	got, err = b.Get(ctx, key("counter")).Result()
	want("counter by transactions", got, "100", err)

	var all []string
	for iter := a.Scan(ctx, 0, key("p*"), 10).Iterator(); iter.Next(ctx); {
		all = append(all, iter.Val())
	}
	slices.Sort(all)
	want("Scan", len(slices.Compact(all)), 100, nil)

	// Messages reach the subscribers on another node.
	sub := b.Subscribe(ctx, key("channel"))
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	if err := a.Publish(ctx, key("channel"), "hello").Err(); err != nil {
		t.Errorf("Publish: %v", err)
	}
	message, err := sub.ReceiveMessage(ctx)
	if err != nil || message.Payload != "hello" {
		t.Errorf("message %v, %v", message, err)
	}
	replicas, err := a.Wait(ctx, 1, time.Second).Result()
	want("Wait", replicas, 1, err)
	info, err := a.Info(ctx, "replication").Result()
	want("Info", strings.Contains(info, "locum_leader:"), true, err)
}

// increment adds one to a key by WATCH, GET, MULTI, SET, EXEC.
func increment(ctx context.Context, client *redis.Client, key string) error {
	return client.Watch(ctx, func(tx *redis.Tx) error {
		n, err := tx.Get(ctx, key).Int()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, key, n+1, 0)
			return nil
		})
		return err
	}, key)
}

// redisCLI types commands, as a person and as a script.
func redisCLI(ctx context.Context, t *testing.T, c *cluster.Cache) {
	if _, err := exec.LookPath("redis-cli"); err != nil {
		missing(t, "no redis-cli (Debian: apt-get install redis-tools)")
	}
	run := func(in string, args ...string) string {
		cmd := exec.CommandContext(ctx, "redis-cli", append([]string{"-p", port(c.Nodes[2].RESP)}, args...)...)
		cmd.Stdin = strings.NewReader(in)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Errorf("redis-cli %q: %v\n%s", args, err, &out)
		}
		return strings.TrimSpace(out.String())
	}
	for _, step := range []struct {
		in   string
		args []string
		want string
	}{
		{"", []string{"SET", "cli", "a b"}, "OK"},
		{"", []string{"-3", "GET", "cli"}, "a b"},
		{"SET x 1\nINCR x\nMULTI\nINCR x\nEXEC\nGET none\n", nil, "OK\n2\nOK\nQUEUED\n3"},
		{encode("SET", "piped", "v") + encode("GET", "piped"), []string{"--pipe"}, "errors: 0, replies: 2"},
		{"", []string{"NOSUCH"}, "ERR unknown command 'NOSUCH'"},
		{"", []string{"--scan", "--pattern", "cl*"}, "cli"},
		{"", []string{"LOCUM.ACK"}, "quorum"},
	} {
		if got := run(step.in, step.args...); !strings.Contains(got, step.want) {
			t.Errorf("redis-cli %q < %q: %q, want %q", step.args, step.in, got, step.want)
		}
	}
}

func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b.String()
}
