package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"strings"
	"sync"
)

const (
	prefix      = "lcm."
	randomLen   = 28 // base62 characters: 166 bits
	accessorLen = 24
	maxLen      = 256 // no token is longer
	alphabet    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// SecretLen is the length of a token that was made here, in bytes of ASCII.
const SecretLen = len(prefix) + randomLen

// Secret is a token as its bearer sends it. It prints "***"; [Secret.Reveal] gives it.
type Secret string

// Reveal gives the token for the one who is to have it.
func (s Secret) Reveal() string { return string(s) }

// Format prints "***" under every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// String gives "***".
func (Secret) String() string { return "***" }

// LogValue gives "***".
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText refuses: a token is never encoded by accident.
func (Secret) MarshalText() ([]byte, error) { return nil, errors.New("a token is not encoded as text") }

func newSecret() Secret { return Secret(prefix + randomText(randomLen)) }

// randomText gives n random characters of base62, all equally likely.
func randomText(n int) string {
	return text(n, func(b []byte) {
		_, _ = rand.Read(b) // never fails; it ends the program instead
	})
}

// text makes n characters of base62 of random bytes.
func text(n int, random func([]byte)) string {
	const fair = 256 - 256%len(alphabet) // bytes from here on would favour the first characters
	var b strings.Builder
	var buf [64]byte
	for b.Len() < n {
		random(buf[:])
		for _, c := range buf {
			if int(c) < fair && b.Len() < n {
				b.WriteByte(alphabet[int(c)%len(alphabet)])
			}
		}
	}
	return b.String()
}

// What HMACs are made of besides tokens. No token has a control character, so that these are never a token's.
const (
	ofAccessor = "accessor\x00"
	ofChildren = "children\x00"
)

// macs makes HMACs under one key without setting it up anew each time.
type macs struct{ pool sync.Pool }

func newMACs(key []byte) (*macs, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("auth: a key of %d bytes, not %d", len(key), keySize)
	}
	own := append([]byte(nil), key...)
	return &macs{pool: sync.Pool{New: func() any { return hmac.New(sha256.New, own) }}}, nil
}

// sum is the name of a token in the store.
func (m *macs) sum(secret Secret) digest { return m.of("", string(secret)) }

// accessor is the name of an accessor in the store.
func (m *macs) accessor(accessor string) digest { return m.of(ofAccessor, accessor) }

func (m *macs) of(what, text string) (d digest) {
	h := m.pool.Get().(hash.Hash)
	h.Reset()
	_, _ = io.WriteString(h, what)
	_, _ = io.WriteString(h, text)
	h.Sum(d[:0])
	h.Reset()
	m.pool.Put(h)
	return d
}

// child makes the secret of the token that the bearer makes in a request: the same one each time that the request is
// repeated. So it need not be stored for the repeat; and as the bearer's own secret goes into it, it cannot be made
// from all that is stored and all keys.
func (m *macs) child(bearer Secret, request string) Secret {
	key := m.of(ofChildren, string(bearer))
	block := uint64(0)
	return Secret(prefix + text(randomLen, func(b []byte) {
		for len(b) > 0 {
			h := hmac.New(sha256.New, key[:])
			_, _ = h.Write(binary.BigEndian.AppendUint64(nil, block))
			_, _ = io.WriteString(h, request)
			b = b[copy(b, h.Sum(nil)):]
			block++
		}
	}))
}
