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

// nonceSize is the size of the newcomer's nonce in bytes, and the least of the cluster's.
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
	if len(c.Nonce) < nonceSize {
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

// Door is the active node's side. It keeps nothing for a stranger: a challenge carries its own expiry and the door's
// seal, so that nobody can crowd out another's (P9, P12). What it remembers are the answers that were right, until they
// expire. The zero Door works; its challenges are good for a minute, and for this process.
type Door struct {
	mu   sync.Mutex
	key  []byte
	used map[string]boottime.Instant // challenges that were answered, with their expiry
}

const (
	challengeTTL  = time.Minute
	challengeSize = 8 + 16 + sha256.Size // expiry, randomness, seal
)

// Challenge makes one for the newcomer.
func (d *Door) Challenge(r Request, sealConfig json.RawMessage, rootKey []byte) (Challenge, error) {
	if err := r.check(); err != nil {
		return Challenge{}, err
	}
	nonce := binary.BigEndian.AppendUint64(make([]byte, 0, challengeSize), uint64(boottime.Now().Add(challengeTTL)))
	nonce = append(nonce, make([]byte, 16)...)
	rand.Read(nonce[8:])
	return Challenge{Format: Format, SealConfig: sealConfig, RootKey: rootKey, Nonce: append(nonce, d.seal(r.NodeID, nonce)...)}, nil
}

// Verify checks an answer. A right one can be given once.
func (d *Door) Verify(key []byte, a Answer) error {
	if err := a.Request.check(); err != nil {
		return err
	}
	if len(a.Nonce) != challengeSize || !hmac.Equal(a.Nonce[24:], d.seal(a.Request.NodeID, a.Nonce[:24])) {
		return ErrChallenge
	}
	expires := boottime.Instant(binary.BigEndian.Uint64(a.Nonce))
	now := boottime.Now()
	if !now.Before(expires) {
		return ErrChallenge
	}
	if !hmac.Equal(a.Proof, prove(key, "newcomer", a.Request, a.Nonce)) {
		return ErrProof
	}
	return d.use(string(a.Nonce), now, expires)
}

// use remembers that a challenge was answered rightly, and forgets those that expired.
func (d *Door) use(nonce string, now, expires boottime.Instant) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n, until := range d.used {
		if until.Before(now) {
			delete(d.used, n)
		}
	}
	if _, again := d.used[nonce]; again {
		return ErrChallenge
	}
	if d.used == nil {
		d.used = map[string]boottime.Instant{}
	}
	d.used[nonce] = expires
	return nil
}

// seal is the door's own mark on a challenge for a node.
func (d *Door) seal(node string, nonce []byte) []byte {
	d.mu.Lock()
	if d.key == nil {
		d.key = make([]byte, 32)
		rand.Read(d.key)
	}
	mac := hmac.New(sha256.New, d.key)
	d.mu.Unlock()
	mac.Write(nonce)
	mac.Write([]byte(node))
	return mac.Sum(nil)
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
