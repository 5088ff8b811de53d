// Package join lets a new node into a cluster on the embedded store: by proof that it holds the root key,
// without that key or anything that opens it being sent, and with the same proof asked of the cluster, so
// that a newcomer cannot be lured into a foreign one (P9).
//
// The talk has two rounds over the ordinary HTTP API, so it may go through any node and in plain text:
//
//	newcomer → Request{who I am, my nonce}           → active node
//	newcomer ← Challenge{seal, wrapped root key, its nonce}
//	         (the newcomer opens the root key with its static key, or once its operator gave the shares)
//	newcomer → Answer{Request, its nonce, proof}
//	newcomer ← Welcome{proof, the cluster authority, sealed for this talk}
//
// Both proofs are HMACs over all that was said so far under a key derived from the root key; each side's
// nonce makes a recorded talk useless. The wrapped root key is what a copy of the storage also shows (P8).
package join

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// Format is the version of this talk.
const Format = 1

// Purpose is what the join key is derived from the root key for.
const Purpose = "locum join v1"

// nonceSize is the size of each side's nonce in bytes.
const nonceSize = 32

// The ways in which a talk ends badly.
var (
	ErrProof     = errors.New("the proof does not fit: not the same root key")
	ErrChallenge = errors.New("no such challenge, or it has expired: ask for a new one")
	ErrFormat    = errors.New("the other side speaks a format of the join that this version does not know")
)

// Request says who wants to join, and where it will be reached.
type Request struct {
	Format      int    `json:"format"`
	NodeID      string `json:"node_id"`
	Name        string `json:"name"`
	ClusterAddr string `json:"cluster_addr"` // host:port of its cluster port
	Nonce       []byte `json:"nonce"`
}

// Challenge is the cluster's answer: what is needed to open the root key, and a nonce to prove it with.
type Challenge struct {
	Format     int             `json:"format"`
	SealConfig json.RawMessage `json:"seal_config"`
	RootKey    []byte          `json:"root_key"` // wrapped by the seal
	Nonce      []byte          `json:"nonce"`
}

// Answer is the newcomer's proof.
type Answer struct {
	Request Request `json:"request"`
	Nonce   []byte  `json:"nonce"` // the challenge's
	Proof   []byte  `json:"proof"`
}

// Welcome is the cluster's proof, with what the newcomer needs to talk to the others.
type Welcome struct {
	Proof  []byte `json:"proof"`
	Sealed []byte `json:"sealed"`
}

// NewRequest makes a request with a fresh nonce.
func NewRequest(nodeID, name, clusterAddr string) Request {
	r := Request{Format: Format, NodeID: nodeID, Name: name, ClusterAddr: clusterAddr, Nonce: make([]byte, nonceSize)}
	rand.Read(r.Nonce) // never fails (crypto/rand)
	return r
}

// NewAnswer proves possession of the root key from which key was derived.
func NewAnswer(key []byte, r Request, c Challenge) (Answer, error) {
	if c.Format != Format {
		return Answer{}, fmt.Errorf("%w: %d", ErrFormat, c.Format)
	}
	if len(c.Nonce) != nonceSize {
		return Answer{}, ErrChallenge
	}
	return Answer{Request: r, Nonce: c.Nonce, Proof: prove(key, "newcomer", r, c.Nonce)}, nil
}

// Open checks the cluster's proof and returns what the welcome carries.
func (a Answer) Open(key []byte, w Welcome) ([]byte, error) {
	if !hmac.Equal(w.Proof, prove(key, "cluster", a.Request, a.Nonce)) {
		return nil, ErrProof
	}
	aead, err := talkCipher(key, a.Request, a.Nonce)
	if err != nil {
		return nil, err
	}
	if len(w.Sealed) < aead.NonceSize() {
		return nil, ErrProof
	}
	plain, err := aead.Open(nil, w.Sealed[:aead.NonceSize()], w.Sealed[aead.NonceSize():], nil)
	if err != nil {
		return nil, ErrProof
	}
	return plain, nil
}

// Door is the active node's side: it remembers the challenges that it gave, for a minute, a bounded number.
type Door struct {
	mu      sync.Mutex
	pending []given // oldest first
}

type given struct {
	nonce   [nonceSize]byte
	node    string
	expires boottime.Instant
}

const (
	maxPending   = 256
	challengeTTL = time.Minute
)

// Challenge notes a fresh nonce for the newcomer.
func (d *Door) Challenge(r Request, sealConfig json.RawMessage, rootKey []byte) (Challenge, error) {
	if err := r.check(); err != nil {
		return Challenge{}, err
	}
	g := given{node: r.NodeID, expires: boottime.Now().Add(challengeTTL)}
	rand.Read(g.nonce[:])
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = append(d.pending, g)
	if len(d.pending) > maxPending {
		d.pending = d.pending[len(d.pending)-maxPending:]
	}
	return Challenge{Format: Format, SealConfig: sealConfig, RootKey: rootKey, Nonce: g.nonce[:]}, nil
}

// Verify checks an answer. Each challenge can be answered once, rightly or wrongly.
func (d *Door) Verify(key []byte, a Answer) error {
	if err := a.Request.check(); err != nil {
		return err
	}
	if !d.take(a) {
		return ErrChallenge
	}
	if !hmac.Equal(a.Proof, prove(key, "newcomer", a.Request, a.Nonce)) {
		return ErrProof
	}
	return nil
}

func (d *Door) take(a Answer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := boottime.Now()
	for i, g := range d.pending {
		if g.node == a.Request.NodeID && string(g.nonce[:]) == string(a.Nonce) {
			d.pending = append(d.pending[:i], d.pending[i+1:]...)
			return now.Before(g.expires)
		}
	}
	return false
}

// NewWelcome seals payload for the newcomer whose answer was verified.
func NewWelcome(key []byte, a Answer, payload []byte) (Welcome, error) {
	aead, err := talkCipher(key, a.Request, a.Nonce)
	if err != nil {
		return Welcome{}, err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(payload)+aead.Overhead())
	rand.Read(nonce)
	return Welcome{
		Proof:  prove(key, "cluster", a.Request, a.Nonce),
		Sealed: aead.Seal(nonce, nonce, payload, nil),
	}, nil
}

func (r Request) check() error {
	switch {
	case r.Format != Format:
		return fmt.Errorf("%w: %d", ErrFormat, r.Format)
	case r.NodeID == "" || r.ClusterAddr == "":
		return errors.New("join request without node_id or cluster_addr")
	case len(r.Nonce) != nonceSize:
		return fmt.Errorf("join request: nonce of %d bytes instead of %d", len(r.Nonce), nonceSize)
	}
	return nil
}

// prove is an HMAC over everything that was said, each part with its length before it.
func prove(key []byte, side string, r Request, nonce []byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte(Purpose), []byte(side), []byte(r.NodeID), []byte(r.Name), []byte(r.ClusterAddr), r.Nonce, nonce} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// talkCipher is the AEAD of one talk: its key depends on both nonces.
func talkCipher(key []byte, r Request, nonce []byte) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, key, append(append([]byte{}, r.Nonce...), nonce...), Purpose+" sealed", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
