package join

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

var (
	rootDerived = bytes.Repeat([]byte{1}, 32)
	otherKey    = bytes.Repeat([]byte{2}, 32)
)

func talk(t *testing.T, d *Door, newcomerKey []byte) (Answer, error) {
	t.Helper()
	r := NewRequest("node-1-id", "node-1", "127.0.0.1:8401")
	c, err := d.Challenge(r, json.RawMessage(`{"type":"static"}`), []byte("wrapped"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAnswer(newcomerKey, r, c)
	if err != nil {
		t.Fatal(err)
	}
	return a, d.Verify(rootDerived, a)
}

// P9: who holds the root key gets in and receives what the cluster sealed for this talk.
func TestJoinWithTheKey(t *testing.T) {
	a, err := talk(t, &Door{}, rootDerived)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWelcome(rootDerived, a, []byte("authority"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(w.Sealed, []byte("authority")) {
		t.Fatal("the payload travels in plain")
	}
	got, err := a.Open(rootDerived, w)
	if err != nil || string(got) != "authority" {
		t.Fatalf("Open = %q, %v", got, err)
	}
}

// P9: nobody joins without the key.
func TestJoinWithoutTheKey(t *testing.T) {
	if _, err := talk(t, &Door{}, otherKey); !errors.Is(err, ErrProof) {
		t.Fatalf("err = %v, want ErrProof", err)
	}
}

// P9: a foreign cluster cannot lure a newcomer, and a changed welcome is refused.
func TestWelcomeIsProven(t *testing.T) {
	a, err := talk(t, &Door{}, rootDerived)
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := NewWelcome(otherKey, a, []byte("authority"))
	if _, err := a.Open(rootDerived, foreign); !errors.Is(err, ErrProof) {
		t.Fatalf("foreign welcome: %v", err)
	}
	w, _ := NewWelcome(rootDerived, a, []byte("authority"))
	w.Sealed[len(w.Sealed)-1] ^= 1
	if _, err := a.Open(rootDerived, w); !errors.Is(err, ErrProof) {
		t.Fatalf("changed welcome: %v", err)
	}
	if _, err := a.Open(rootDerived, Welcome{Proof: w.Proof, Sealed: []byte("x")}); !errors.Is(err, ErrProof) {
		t.Fatalf("short welcome: %v", err)
	}
}

// P9: a recorded answer is useless, also under another name or address.
func TestAnswersAreUsedOnce(t *testing.T) {
	d := &Door{}
	a, err := talk(t, d, rootDerived)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Verify(rootDerived, a); !errors.Is(err, ErrChallenge) {
		t.Fatalf("second use: %v", err)
	}
	r := NewRequest("node-1-id", "node-1", "127.0.0.1:8401")
	c, _ := d.Challenge(r, nil, nil)
	a, _ = NewAnswer(rootDerived, r, c)
	a.Request.ClusterAddr = "127.0.0.1:9999"
	if err := d.Verify(rootDerived, a); !errors.Is(err, ErrProof) {
		t.Fatalf("changed address: %v", err)
	}
}

// P9, P12: strangers who ask for challenges take no memory, and do not take another's challenge away; a challenge is
// bound to the node that asked, and to its door.
func TestStrangersCannotCrowdOut(t *testing.T) {
	d := &Door{}
	r := NewRequest("node-1-id", "node-1", "127.0.0.1:8401")
	c, err := d.Challenge(r, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		if _, err := d.Challenge(NewRequest("x", "x", "y:1"), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.used) > 0 {
		t.Fatalf("%d remembered", len(d.used))
	}
	stolen, _ := NewAnswer(rootDerived, NewRequest("x", "x", "y:1"), c)
	if err := d.Verify(rootDerived, stolen); !errors.Is(err, ErrChallenge) {
		t.Fatalf("another node's challenge: %v", err)
	}
	a, _ := NewAnswer(rootDerived, r, c)
	if err := new(Door).Verify(rootDerived, a); !errors.Is(err, ErrChallenge) {
		t.Fatalf("another door's challenge: %v", err)
	}
	late := a
	late.Nonce = append([]byte(nil), a.Nonce...)
	clear(late.Nonce[:8]) // as if it had expired long ago
	if err := d.Verify(rootDerived, late); !errors.Is(err, ErrChallenge) {
		t.Fatalf("changed expiry: %v", err)
	}
	if err := d.Verify(rootDerived, a); err != nil {
		t.Fatal(err)
	}
}

// Bad requests and formats are refused.
func TestBadRequests(t *testing.T) {
	d := &Door{}
	for _, r := range []Request{{}, {Format: 2}, {Format: 1, NodeID: "x", ClusterAddr: "y"}} {
		if _, err := d.Challenge(r, nil, nil); err == nil {
			t.Fatalf("%+v taken", r)
		}
	}
	if _, err := NewAnswer(rootDerived, Request{}, Challenge{Format: 9}); !errors.Is(err, ErrFormat) {
		t.Fatal(err)
	}
}
