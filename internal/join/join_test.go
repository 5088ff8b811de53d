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

// P12: what an unauthenticated caller can make the node remember is bounded; bad requests are refused.
func TestChallengesAreBounded(t *testing.T) {
	d := &Door{}
	for range 10 * maxPending {
		if _, err := d.Challenge(NewRequest("x", "x", "y:1"), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.pending) > maxPending {
		t.Fatalf("%d pending", len(d.pending))
	}
	for _, r := range []Request{{}, {Format: 2}, {Format: 1, NodeID: "x", ClusterAddr: "y"}} {
		if _, err := d.Challenge(r, nil, nil); err == nil {
			t.Fatalf("%+v taken", r)
		}
	}
	if _, err := NewAnswer(rootDerived, Request{}, Challenge{Format: 9}); !errors.Is(err, ErrFormat) {
		t.Fatal(err)
	}
}
