package barrier

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	keyringFormat = 1
	rootTerm      = 0 // the key term of what the root key itself seals: the keyring
	firstTerm     = 1
)

// storedKeyring is the keyring as JSON, before it is sealed by the root key.
type storedKeyring struct {
	Format int         `json:"format"`
	Keys   []storedKey `json:"keys"` // by rising term; the last one seals
}

type storedKey struct {
	Term        uint32    `json:"term"`
	Key         []byte    `json:"key"`
	InstallTime time.Time `json:"install_time"`
	Encryptions uint64    `json:"encryptions"` // reserved, so never below what was used
}

func (storedKey) String() string   { return "***" }
func (storedKey) GoString() string { return "***" }

// parseKeyring decodes and checks a keyring.
func parseKeyring(data []byte) (*storedKeyring, error) {
	var k storedKeyring
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, fmt.Errorf("keyring: %w: it is no JSON", ErrTampered) // the JSON error could quote a key
	}
	if k.Format > keyringFormat {
		return nil, fmt.Errorf("keyring: %w: format %d, this build knows %d", ErrNewerFormat, k.Format, keyringFormat)
	}
	if k.Format != keyringFormat || len(k.Keys) == 0 {
		return nil, fmt.Errorf("keyring: %w: format %d with %d keys", ErrTampered, k.Format, len(k.Keys))
	}
	last := uint32(rootTerm)
	for _, key := range k.Keys {
		if key.Term <= last || len(key.Key) != KeySize {
			return nil, fmt.Errorf("keyring: %w: key term %d after %d, %d bytes", ErrTampered, key.Term, last, len(key.Key))
		}
		last = key.Term
	}
	return &k, nil
}

func (k *storedKeyring) marshal() ([]byte, error) {
	data, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return data, nil
}

func (k *storedKeyring) last() *storedKey { return &k.Keys[len(k.Keys)-1] }

// clone copies the keyring so that it can be changed. The keys' bytes are shared: they never change.
func (k *storedKeyring) clone() *storedKeyring {
	return &storedKeyring{Format: k.Format, Keys: append([]storedKey(nil), k.Keys...)}
}

// rotated is the keyring with a new key at its end, some of whose uses are reserved at once.
func (k *storedKeyring) rotated(now time.Time, reserved uint64) *storedKeyring {
	out := k.clone()
	term := uint32(firstTerm)
	if len(out.Keys) > 0 {
		term = out.last().Term + 1
	}
	key := make([]byte, KeySize)
	_, _ = rand.Read(key)
	out.Keys = append(out.Keys, storedKey{Term: term, Key: key, InstallTime: now.UTC(), Encryptions: reserved})
	return out
}

func (k *storedKeyring) wipe() {
	for _, key := range k.Keys {
		clear(key.Key)
	}
}

// keys is all that a request needs. It is immutable but for used, and reached by an atomic pointer.
//
// Invariant: the store's keyring says for the last term at least reserved, and used ≤ reserved before any entry
// sealed by it leaves this node.
type keys struct {
	root     []byte
	rootAEAD cipher.AEAD
	ring     *storedKeyring
	raw      []byte // the sealed keyring as it lies in the store: the condition of the next write
	ciphers  map[uint32]cipher.AEAD
	term     uint32 // the last one: it seals
	active   cipher.AEAD
	used     *atomic.Uint64
	reserved uint64
}

// newKeys builds the ciphers of a keyring, taking over those that before has already.
func newKeys(root []byte, rootAEAD cipher.AEAD, ring *storedKeyring, raw []byte, before *keys) (*keys, error) {
	last := ring.last()
	k := &keys{
		root: root, rootAEAD: rootAEAD, ring: ring, raw: raw,
		ciphers: make(map[uint32]cipher.AEAD, len(ring.Keys)),
		term:    last.Term, used: new(atomic.Uint64), reserved: last.Encryptions,
	}
	for _, key := range ring.Keys {
		if before.has(key) {
			k.ciphers[key.Term] = before.ciphers[key.Term]
			continue
		}
		aead, err := newAEAD(key.Key)
		if err != nil {
			return nil, fmt.Errorf("keyring: key term %d: %w", key.Term, err)
		}
		k.ciphers[key.Term] = aead
	}
	k.active = k.ciphers[k.term]
	k.used.Store(last.Encryptions) // what others reserved counts as used
	return k, nil
}

// has reports whether k holds exactly this key.
func (k *keys) has(key storedKey) bool {
	if k == nil {
		return false
	}
	for _, own := range k.ring.Keys {
		if own.Term == key.Term {
			return string(own.Key) == string(key.Key)
		}
	}
	return false
}

// take counts n uses of the key that seals, if so many are reserved.
func (k *keys) take(n uint64) bool {
	if k.used.Add(n) <= k.reserved {
		return true
	}
	k.used.Add(^(n - 1)) // give them back
	return false
}
