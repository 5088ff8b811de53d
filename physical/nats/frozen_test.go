package nats

import (
	"regexp"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/locum-ha/locum/internal/frozen"
	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

// The value of the first version is read, and written as it was, where it was.
func TestFrozenValue(t *testing.T) {
	server := storeserver.StartNATS(t)
	conn, err := client.Connect(server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(Config{URLs: []string{server.URL("")}, Bucket: "frozen", Key: "lock"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	kv, err := js.KeyValue(t.Context(), "frozen")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "lock", []byte(`{"format":1,"record":{"holder":"id","name":"node","term":7},"ttl_ns":60000000000,"nonce":"AP8=","beat":9}`)); err != nil {
		t.Fatal(err)
	}
	held := frozen.Record
	held.Next = ""
	if r, err := s.Holder(t.Context()); err != nil || r != held {
		t.Errorf("holder %+v, %v", r, err)
	}
	if _, err := kv.Put(t.Context(), "lock", []byte(`{"format":1,"record":{"name":"node","term":7,"next":"id"},"ttl_ns":0,"nonce":"AP8=","beat":9}`)); err != nil {
		t.Fatal(err)
	}
	if g, err := s.Acquire(t.Context(), physical.Record{Holder: "id", Name: "node"}, time.Minute, 0); err != nil || g.Term() != 8 {
		t.Fatalf("acquired %+v, %v", g, err)
	}
	e, err := kv.Get(t.Context(), "lock")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"format":1,"record":{"holder":"id","name":"node","term":8},"ttl_ns":60000000000,"nonce":"NONCE","beat":N}`
	got := regexp.MustCompile(`"nonce":"[^"]+","beat":\d+`).ReplaceAllString(string(e.Value()), `"nonce":"NONCE","beat":N`)
	if got != want {
		t.Errorf("the value is now %s, want %s", got, want)
	}
}
