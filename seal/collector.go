package seal

import (
	"crypto/rand"
	"fmt"
	"sync"
)

// Collector gathers shares, one at a time and from whoever brings them, until there are enough for the key.
// It may be used concurrently.
type Collector struct {
	shares, threshold int

	mu    sync.Mutex
	given []Share
	nonce string // names this round, so that a keeper sees that the others are in the same one
}

// Progress is how far a Collector has come, as seal-status shows it.
type Progress struct {
	Shares    int    // n: how many shares there are
	Threshold int    // t: how many are needed
	Given     int    // progress: how many were given
	Nonce     string // of this round; "" while none was given
}

// NewCollector makes a collector for a split of so many shares. [ErrMalformed] if there can be no such split.
func NewCollector(shares, threshold int) (*Collector, error) {
	if err := checkSplit(shares, threshold); err != nil {
		return nil, err
	}
	return &Collector{shares: shares, threshold: threshold}, nil
}

// Add takes a share. With the last one that was needed it returns the key and true, and starts over; whether
// the key is the right one, only unwrapping tells. A share that was given before is refused
// ([ErrDuplicateShare]), and so is one that cannot belong to the others ([ErrMixedShares], [ErrMalformed]);
// those given stay.
func (c *Collector) Add(share Share) (Key, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(share) != KeySize+1 || share.Number() == 0 || share.Number() > c.shares {
		return Key{}, false, fmt.Errorf("%w: not one of the %d key shares", ErrMalformed, c.shares)
	}
	if err := fits(c.given, share); err != nil {
		return Key{}, false, err
	}
	if len(c.given) == 0 {
		c.nonce = newNonce()
	}
	c.given = append(c.given, append(Share(nil), share...))
	if len(c.given) < c.threshold {
		return Key{}, false, nil
	}
	secret, err := Combine(c.given)
	c.reset()
	if err != nil {
		return Key{}, false, err
	}
	var k Key
	copy(k[:], secret)
	clear(secret)
	return k, true, nil
}

// Progress says how far this round has come.
func (c *Collector) Progress() Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Progress{Shares: c.shares, Threshold: c.threshold, Given: len(c.given), Nonce: c.nonce}
}

// Reset forgets the shares given.
func (c *Collector) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset()
}

func (c *Collector) reset() {
	for _, s := range c.given {
		clear(s)
	}
	c.given, c.nonce = nil, ""
}

// newNonce is a random UUID (RFC 9562, version 4).
func newNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
