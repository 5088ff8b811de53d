package barrier

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
)

const (
	entryFormat = 1
	termAt      = 1
	nonceAt     = termAt + 4
	bodyAt      = nonceAt + nonceSize
	nonceSize   = 12
	tagSize     = 16

	// Overhead is by how many bytes a sealed entry is longer than its value.
	Overhead = bodyAt + tagSize

	// KeySize is the length of the root key and of every key in the keyring, in bytes.
	KeySize = 32
)

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealEntry encrypts value under the name. The name stands behind the result in the same allocation while it is
// needed as additional data, and is cut off by the capacity.
func sealEntry(aead cipher.AEAD, term uint32, name string, value []byte) []byte {
	size := Overhead + len(value)
	buf := make([]byte, size+len(name))
	aad := buf[size:]
	copy(aad, name)
	buf[0] = entryFormat
	binary.BigEndian.PutUint32(buf[termAt:], term)
	nonce := buf[nonceAt:bodyAt]
	_, _ = rand.Read(nonce) // never fails; it ends the program instead
	aead.Seal(buf[:bodyAt], nonce, value, aad)
	return buf[:size:size]
}

// entryTerm reads the key term of a sealed entry.
func entryTerm(name string, sealed []byte) (uint32, error) {
	if len(sealed) > 0 && sealed[0] > entryFormat {
		return 0, fmt.Errorf("%q: %w: format %d, this build knows %d", name, ErrNewerFormat, sealed[0], entryFormat)
	}
	if len(sealed) < Overhead || sealed[0] != entryFormat {
		return 0, fmt.Errorf("%q: %w: %d bytes are no sealed entry", name, ErrTampered, len(sealed))
	}
	return binary.BigEndian.Uint32(sealed[termAt:]), nil
}

// aads holds buffers for names, so that opening an entry allocates nothing.
var aads = sync.Pool{New: func() any { return new([]byte) }}

// openEntry decrypts in place: the result lies in sealed, which is lost.
func openEntry(aead cipher.AEAD, name string, sealed []byte) ([]byte, error) {
	buf := aads.Get().(*[]byte)
	*buf = append((*buf)[:0], name...)
	body := sealed[bodyAt:]
	value, err := aead.Open(body[:0], sealed[nonceAt:bodyAt], body, *buf)
	aads.Put(buf)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, ErrTampered)
	}
	return value, nil
}
