package redis

import (
	"maps"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/frozen"
	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

// The keys of the first version are read, and written as they were.
func TestFrozenKeys(t *testing.T) {
	server := storeserver.StartRedis(t)
	s := mustOpen(t, Config{Addresses: []string{server.Addr}})
	lock := map[string]string{"format": "1", "holder": "id", "name": "node", "term": "7", "token": "00ff", "ttl": "60000"}
	kept := map[string]string{"format": "1", "term": "7", "next": ""}
	for i, fields := range []map[string]string{lock, kept} {
		if err := s.client.HSet(t.Context(), s.keys[i], fields).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.client.PExpire(t.Context(), s.keys[0], time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	held := frozen.Record
	held.Next = ""
	if r, err := s.Holder(t.Context()); err != nil || r != held {
		t.Errorf("holder %+v, %v", r, err)
	}
	g, err := s.Renew(t.Context(), physical.Grant{Record: held, Token: []byte{0, 0xff}})
	if err != nil || g.TTL != time.Minute {
		t.Fatalf("renewal %+v, %v", g, err)
	}
	if err := s.Release(t.Context(), g, "other"); err != nil {
		t.Fatal(err)
	}
	kept["next"] = "other"
	if got := s.client.HGetAll(t.Context(), s.keys[1]).Val(); !maps.Equal(got, kept) {
		t.Errorf("after a release %v, want %v", got, kept)
	}
	if _, err := s.Acquire(t.Context(), physical.Record{Holder: "id", Name: "node"}, time.Minute, 0); err != nil {
		t.Fatal(err)
	}
	lock["term"], kept["term"], kept["next"] = "8", "8", ""
	got := s.client.HGetAll(t.Context(), s.keys[0]).Val()
	if len(got["token"]) != 32 {
		t.Errorf("the token is %q", got["token"])
	}
	got["token"] = lock["token"]
	if !maps.Equal(got, lock) {
		t.Errorf("the lock is %v, want %v", got, lock)
	}
	if got := s.client.HGetAll(t.Context(), s.keys[1]).Val(); !maps.Equal(got, kept) {
		t.Errorf("what is kept is %v, want %v", got, kept)
	}
}
