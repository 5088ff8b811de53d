package seal

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// KeySize is the length of every key, in bytes: AES-256.
const KeySize = 32

// maxKeyFile bounds what is read of a key file: hex of a key is 64 bytes, the rest may be white space.
const maxKeyFile = 4096

// Key is a key of 256 bits that never shows itself: every way of printing, logging or encoding it as text
// gives "***".
type Key [KeySize]byte

// NewKey makes a random key.
func NewKey() Key {
	var k Key
	_, _ = rand.Read(k[:]) // crypto/rand.Read never fails; it ends the program instead
	return k
}

// ParseKey reads a key as 64 hexadecimal digits, as base64 of 32 bytes (any of the four alphabets), or as
// exactly 32 raw bytes. Space around hex and base64, a newline at the end above all, does not matter; after
// 32 raw bytes one newline is allowed. [ErrMalformed] never quotes the input.
func ParseKey(data []byte) (Key, error) {
	var k Key
	if raw, ok := decodeText(strings.TrimSpace(string(data)), KeySize); ok {
		copy(k[:], raw)
		clear(raw)
		return k, nil
	}
	raw := data
	if n := len(raw); n == KeySize+1 && raw[n-1] == '\n' {
		raw = raw[:n-1]
	} else if n == KeySize+2 && raw[n-2] == '\r' && raw[n-1] == '\n' {
		raw = raw[:n-2]
	}
	if len(raw) != KeySize {
		return k, fmt.Errorf("%w: a key is 32 raw bytes, 64 hexadecimal digits, or base64 of 32 bytes; this is %d bytes of something else",
			ErrMalformed, len(data))
	}
	copy(k[:], raw)
	return k, nil
}

// ReadKeyFile reads a key from a file, in any form that [ParseKey] takes.
func ReadKeyFile(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("seal key: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	defer clear(data)
	if err != nil {
		return Key{}, fmt.Errorf("seal key: %w", err)
	}
	if len(data) > maxKeyFile {
		return Key{}, fmt.Errorf("seal key: %s: %w: longer than %d bytes", path, ErrMalformed, maxKeyFile)
	}
	k, err := ParseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("seal key: %s: %w", path, err)
	}
	return k, nil
}

// ReadKeyEnv reads a key from a variable of the environment, as hex or base64.
func ReadKeyEnv(name string) (Key, error) {
	text, ok := os.LookupEnv(name)
	if !ok || text == "" {
		return Key{}, fmt.Errorf("seal key: the environment has no %s", name)
	}
	k, err := ParseKey([]byte(text))
	if err != nil {
		return Key{}, fmt.Errorf("seal key: environment %s: %w", name, err)
	}
	return k, nil
}

// Wipe overwrites the key. Copies that were made of it are not reached.
func (k *Key) Wipe() { clear(k[:]) }

// IsZero reports whether the key was never set, or was wiped.
func (k Key) IsZero() bool { return k == Key{} }

// Format prints "***" under every verb, %x and %d included.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// String gives "***".
func (Key) String() string { return hidden }

// LogValue gives "***".
func (Key) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText refuses: a key is never encoded by accident.
func (Key) MarshalText() ([]byte, error) { return nil, errHidden }

// hidden is what a secret prints.
const hidden = "***"

var errHidden = errors.New("a secret is not encoded as text")

// decodeText decodes hex or base64 of exactly size bytes.
func decodeText(text string, size int) ([]byte, bool) {
	if len(text) == hex.EncodedLen(size) {
		if raw, err := hex.DecodeString(text); err == nil {
			return raw, true
		}
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if len(text) != enc.EncodedLen(size) {
			continue
		}
		if raw, err := enc.Strict().DecodeString(text); err == nil && len(raw) == size {
			return raw, true
		}
	}
	return nil, false
}
