package seal

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// slowMul multiplies polynomials over GF(2) and then divides: the definition, to hold mul against.
func slowMul(a, b byte) byte {
	var p uint16
	for i := range 8 {
		if b>>i&1 == 1 {
			p ^= uint16(a) << i
		}
	}
	for i := 15; i >= 8; i-- {
		if p>>i&1 == 1 {
			p ^= 0x11b << (i - 8)
		}
	}
	return byte(p)
}

func TestFieldArithmetic(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			if got, want := mul(byte(a), byte(b)), slowMul(byte(a), byte(b)); got != want {
				t.Fatalf("%#x * %#x = %#x, want %#x", a, b, got, want)
			}
		}
		if a > 0 && mul(byte(a), inverse(byte(a))) != 1 {
			t.Fatalf("%#x * 1/%#x is not 1", a, a)
		}
	}
	// FIPS 197 §4.2: {57} * {83} = {c1}.
	if mul(0x57, 0x83) != 0xc1 {
		t.Fatal("not the field of AES")
	}
}

// Any threshold of the shares, in any order, give the secret back; so do more of them.
func TestSplitCombine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "secret")
		n := rapid.IntRange(2, 40).Draw(t, "shares")
		k := rapid.IntRange(2, n).Draw(t, "threshold")
		shares, err := Split(secret, n, k)
		if err != nil {
			t.Fatal(err)
		}
		picked := rapid.Permutation(shares).Draw(t, "order")[:rapid.IntRange(k, n).Draw(t, "given")]
		got, err := Combine(picked)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, secret) {
			t.Fatalf("%d of %d shares gave another secret", len(picked), n)
		}
	})
}

// Fewer shares than the threshold fit every secret: for each candidate there is a share that completes them.
func TestFewerSharesSayNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := []byte{rapid.Byte().Draw(t, "secret")}
		k := rapid.IntRange(2, 6).Draw(t, "threshold")
		shares, err := Split(secret, k, k)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[byte]bool{}
		last := shares[k-1]
		for y := range 256 {
			got, err := Combine(append(append([]Share(nil), shares[:k-1]...), Share{byte(y), last[1]}))
			if err != nil {
				t.Fatal(err)
			}
			seen[got[0]] = true
		}
		if len(seen) != 256 {
			t.Fatalf("%d of 256 secrets are possible", len(seen))
		}
	})
}

func TestSplitOfAllSizes(t *testing.T) {
	secret := []byte("a root key's key-encryption key.")
	for _, c := range []struct{ n, k int }{{1, 1}, {2, 2}, {5, 3}, {255, 2}, {255, 255}} {
		shares, err := Split(secret, c.n, c.k)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Combine(shares[c.n-c.k:])
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%d of %d: %v", c.k, c.n, err)
		}
	}
	for _, c := range []struct{ n, k int }{{0, 0}, {1, 0}, {1, 2}, {2, 1}, {3, 4}, {256, 2}, {-1, -1}} {
		if _, err := Split(secret, c.n, c.k); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d: %v", c.k, c.n, err)
		}
	}
	if _, err := Split(nil, 3, 2); !errors.Is(err, ErrMalformed) {
		t.Error("an empty secret was split")
	}
}

func TestCombineRefuses(t *testing.T) {
	a, _ := Split([]byte("0123"), 3, 2)
	b, _ := Split([]byte("4567"), 3, 2)
	for name, c := range map[string]struct {
		shares []Share
		want   error
	}{
		"none":        {nil, ErrMalformed},
		"empty share": {[]Share{{}}, ErrMalformed},
		"number zero": {[]Share{{1, 2, 0}}, ErrMalformed},
		"twice":       {[]Share{a[0], a[1], a[0]}, ErrDuplicateShare},
		"two splits":  {[]Share{a[0], b[0]}, ErrMixedShares},
		"two lengths": {[]Share{a[0], {1, 2}}, ErrMixedShares},
	} {
		if _, err := Combine(c.shares); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestSharesHideThemselves(t *testing.T) {
	shares, _ := Split(bytes.Repeat([]byte{0xab}, KeySize), 3, 2)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, shares[0]); got != hidden {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}
