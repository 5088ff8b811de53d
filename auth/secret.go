package auth

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	prefix    = "lcm."
	randomLen = 28  // base62 characters: 166 bits
	maxLen    = 256 // no token is longer
	alphabet  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

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
	const fair = 256 - 256%len(alphabet) // bytes from here on would favour the first characters
	var b strings.Builder
	var buf [64]byte
	for b.Len() < n {
		_, _ = rand.Read(buf[:]) // never fails; it ends the program instead
		for _, c := range buf {
			if int(c) < fair && b.Len() < n {
				b.WriteByte(alphabet[int(c)%len(alphabet)])
			}
		}
	}
	return b.String()
}
