package seal

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Share is one share of a secret: a byte for each byte of the secret, then the share's number (1 … 255). It
// prints "***"; Hex and Base64 give it to the person who keeps it.
type Share []byte

// Number is the share's x coordinate; 0 if it is no share.
func (s Share) Number() int {
	if len(s) < 2 {
		return 0
	}
	return int(s[len(s)-1])
}

// Format prints "***" under every verb.
func (Share) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// String gives "***".
func (Share) String() string { return hidden }

// LogValue gives "***".
func (Share) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText refuses: a share is never encoded by accident.
func (Share) MarshalText() ([]byte, error) { return nil, errHidden }

// Split makes shares of the secret, any threshold of which give it back while fewer say nothing about it
// (Shamir, How to share a secret, 1979). With one share, that share is the secret.
func Split(secret []byte, shares, threshold int) ([]Share, error) {
	return split(rand.Reader, secret, shares, threshold)
}

func split(random io.Reader, secret []byte, shares, threshold int) ([]Share, error) {
	if len(secret) == 0 {
		return nil, fmt.Errorf("%w: nothing to split", ErrMalformed)
	}
	if err := checkSplit(shares, threshold); err != nil {
		return nil, err
	}
	// For each byte of the secret a polynomial of degree threshold-1 whose value at 0 is that byte; row c
	// of coefficients holds those of x^(c+1) for all bytes.
	n := len(secret)
	coefficients := make([]byte, (threshold-1)*n)
	defer clear(coefficients)
	if _, err := io.ReadFull(random, coefficients); err != nil {
		return nil, fmt.Errorf("split: %w", err)
	}
	out := make([]Share, shares)
	for i := range out {
		x := byte(i + 1)
		y := make(Share, n+1)
		for c := threshold - 2; c >= 0; c-- { // Horner's rule, from the highest power down
			for b := range n {
				y[b] = mul(y[b]^coefficients[c*n+b], x)
			}
		}
		subtle.XORBytes(y, y[:n], secret)
		y[n] = x
		out[i] = y
	}
	return out, nil
}

// Combine gives the secret back from at least threshold shares of one split. It cannot tell whether the
// shares are enough or right: fewer, or others, give some other secret of the same length. [ErrMixedShares]
// when they cannot belong together, [ErrDuplicateShare] when one stands twice.
func Combine(shares []Share) ([]byte, error) {
	if len(shares) == 0 {
		return nil, fmt.Errorf("%w: no shares", ErrMalformed)
	}
	n := len(shares[0]) - 1
	if n < 1 {
		return nil, fmt.Errorf("%w: share of %d bytes", ErrMalformed, n+1)
	}
	for i, s := range shares {
		if err := fits(shares[:i], s); err != nil {
			return nil, err
		}
	}
	secret := make([]byte, n)
	for i, s := range shares {
		w := weight(shares, i)
		for b := range n {
			secret[b] ^= mul(w, s[b])
		}
	}
	return secret, nil
}

// fits reports whether s can stand beside others of its split.
func fits(others []Share, s Share) error {
	if s.Number() == 0 {
		return fmt.Errorf("%w: not a share", ErrMalformed)
	}
	for _, o := range others {
		switch {
		case len(o) != len(s):
			return fmt.Errorf("%w: their lengths differ", ErrMixedShares)
		case o.Number() != s.Number():
		case subtle.ConstantTimeCompare(o, s) == 1:
			return ErrDuplicateShare
		default:
			return fmt.Errorf("%w: two different ones have the number %d", ErrMixedShares, s.Number())
		}
	}
	return nil
}

// weight is the Lagrange basis polynomial of share i at 0: the product of xj/(xj-xi) over all others.
func weight(shares []Share, i int) byte {
	xi := byte(shares[i].Number())
	over, under := byte(1), byte(1)
	for j, s := range shares {
		if j != i {
			xj := byte(s.Number())
			over = mul(over, xj)
			under = mul(under, xj^xi)
		}
	}
	return mul(over, inverse(under))
}

// mul multiplies in GF(2^8) modulo x^8+x^4+x^3+x+1, AES's own field, without tables or branches, so that its
// time says nothing of its factors.
func mul(a, b byte) byte {
	var p byte
	for i := range 8 {
		p ^= a & -(b >> i & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
	}
	return p
}

// inverse is a^254, which is 1/a for every a but 0.
func inverse(a byte) byte {
	a2 := mul(a, a)
	a3 := mul(a2, a)
	a6 := mul(a3, a3)
	a12 := mul(a6, a6)
	a15 := mul(a12, a3)
	a30 := mul(a15, a15)
	a60 := mul(a30, a30)
	a120 := mul(a60, a60)
	a126 := mul(a120, a6)
	a127 := mul(a126, a)
	return mul(a127, a127)
}
