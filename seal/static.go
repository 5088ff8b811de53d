package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
)

// Types of seal, as in the configuration.
const (
	TypeStatic = "static"
	TypeShamir = "shamir"
)

// A wrapped blob is: format 1 (1 B) | nonce (12 B) | AES-256-GCM ciphertext and tag, with "locum/seal/" and
// the seal's type as additional data.
const (
	wrapFormat = 1
	nonceSize  = 12
	tagSize    = 16
)

// keySeal wraps under one key that this process holds.
type keySeal struct {
	typ  string
	aead cipher.AEAD
}

// NewStatic is the seal whose key comes from a file or the environment, for unattended start.
func NewStatic(key Key) Seal { return newKeySeal(TypeStatic, key) }

// NewShamir is the seal whose key was put together from shares ([Collector]).
func NewShamir(key Key) Seal { return newKeySeal(TypeShamir, key) }

func newKeySeal(typ string, key Key) Seal {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("seal: " + err.Error()) // a Key has the size of an AES-256 key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("seal: " + err.Error()) // AES has the block size of GCM
	}
	return &keySeal{typ: typ, aead: aead}
}

func (s *keySeal) Type() string { return s.typ }

func (s *keySeal) aad() []byte { return []byte("locum/seal/" + s.typ) }

func (s *keySeal) Wrap(_ context.Context, plain []byte) ([]byte, error) {
	blob := make([]byte, 1+nonceSize, 1+nonceSize+len(plain)+tagSize)
	blob[0] = wrapFormat
	_, _ = rand.Read(blob[1:])
	return s.aead.Seal(blob, blob[1:], plain, s.aad()), nil
}

func (s *keySeal) Unwrap(_ context.Context, blob []byte) ([]byte, error) {
	if len(blob) == 0 {
		return nil, fmt.Errorf("wrapped key: %w: empty", ErrMalformed)
	}
	if blob[0] > wrapFormat {
		return nil, fmt.Errorf("wrapped key: %w: format %d, this build knows %d", ErrNewerFormat, blob[0], wrapFormat)
	}
	if blob[0] != wrapFormat || len(blob) < 1+nonceSize+tagSize {
		return nil, fmt.Errorf("wrapped key: %w: %d bytes of format %d", ErrMalformed, len(blob), blob[0])
	}
	plain, err := s.aead.Open(nil, blob[1:1+nonceSize], blob[1+nonceSize:], s.aad())
	if err != nil {
		return nil, fmt.Errorf("wrapped key: %w", ErrWrongKey)
	}
	return plain, nil
}
