package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// pooled stands before a server as a transaction pooler does, as far as a client sees it when it connects: the process id that it
// gives out is its own, and, if strict, it refuses settings that it does not know. It takes clients until it has had most.
func pooled(t *testing.T, target string, strict bool, most int) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for n := 0; ; n++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			if n >= most {
				_ = client.Close()
				continue
			}
			go poolOne(client, target, strict)
		}
	}()
	return l.Addr().String()
}

// poolOne serves one client of pooled.
func poolOne(client net.Conn, target string, strict bool) {
	defer client.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(client, head); err != nil {
		return
	}
	startup := make([]byte, binary.BigEndian.Uint32(head)-4)
	if _, err := io.ReadFull(client, startup); err != nil {
		return
	}
	if strict && strings.Contains(string(startup), "default_transaction_isolation") {
		const refusal = "SFATAL\x00VFATAL\x00C08P01\x00Munsupported startup parameter: default_transaction_isolation\x00\x00"
		_, _ = client.Write(append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(refusal)+4)), refusal...))
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := server.Write(append(head, startup...)); err != nil {
		return
	}
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, client)
	}()
	for first := true; first; {
		message := make([]byte, 5)
		if _, err := io.ReadFull(server, message); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(message[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if message[0] == 'K' {
			binary.BigEndian.PutUint32(body, 4242) // a process id of its own
		}
		first = message[0] != 'Z'
		if _, err := client.Write(append(message, body...)); err != nil {
			return
		}
	}
	_, _ = io.Copy(client, server)
}

// A transaction pooler is noticed; there the simple protocol is spoken, and changes of the lock are heard through listen_url, or found by
// polling.
func (p *place) testPooler(t *testing.T) {
	for name, c := range map[string]struct{ strict, listens bool }{
		"lenient": {false, true}, "strict": {true, true}, "without listen_url": {true, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{URL: physical.Secret(p.server.URL(pooled(t, p.server.Addr, c.strict, math.MaxInt))), Schema: p.fresh()}
			if c.listens {
				cfg.ListenURL = physical.Secret(p.server.URL(""))
			}
			s, err := open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if !s.pooler {
				t.Error("the pooler was not noticed")
			}
			if s.Caps().Watch != c.listens {
				t.Errorf("Watch is %v", s.Caps().Watch)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			g, err := s.Acquire(ctx, physical.Record{Holder: "a"}, 5*time.Second, 0)
			if err != nil {
				t.Fatal(err)
			}
			woken := make(chan physical.Record, 1)
			go func() {
				r, _ := s.Watch(ctx, g.Record)
				woken <- r
			}()
			if err := s.Release(ctx, g, "b"); err != nil {
				t.Fatal(err)
			}
			if r := <-woken; r.Holder != "" || r.Next != "b" {
				t.Errorf("the watcher woke with %+v", r)
			}
		})
	}
	full := Config{URL: physical.Secret(p.server.URL(pooled(t, p.server.Addr, false, 1))), Schema: p.fresh()}
	if _, err := open(full); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("a pooler that takes one client and no second one: %v", err)
	}
	direct, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh()})
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	if direct.pooler {
		t.Error("a pooler was seen where there is none")
	}
}

// Entries of all kinds go through the simple protocol, which knows no binary parameters.
func (p *place) testSimpleProtocol(t *testing.T) {
	harness := p.harness(func(c *Config) { c.Pooler, c.ListenURL = PoolerYes, c.URL })
	if storeserver.Faults() {
		physicaltest.Backend(t, harness)
		physicaltest.HABackend(t, harness)
		return
	}
	h, err := harness(t).Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := h.(*Store)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	key := `it's/a "key"\ {with},NULL`
	if err := s.Commit(t.Context(), nil, physical.Put(key, all), physical.Put("empty", nil), physical.RequireAbsent(key), physical.Delete("none")); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Get(t.Context(), key); err != nil || string(e.Value) != string(all) {
		t.Errorf("get: %+v, %v", e, err)
	}
	if err := s.Commit(t.Context(), nil, physical.RequireValue("empty", nil), physical.RequireValue(key, all)); err != nil {
		t.Errorf("conditions that hold: %v", err)
	}
	if err := s.Commit(t.Context(), nil, physical.RequireAbsent("empty")); !errors.Is(err, physical.ErrConflict) {
		t.Errorf("a condition that does not hold: %v", err)
	}
	if names, err := s.List(t.Context(), "it's/", "", 1); err != nil || len(names) != 1 {
		t.Errorf("list: %q, %v", names, err)
	}
}
