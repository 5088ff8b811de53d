package seal

import (
	"encoding/json"
	"fmt"
)

const configFormat = 1

// Limits of a split. More shares than x coordinates cannot be made; a threshold of 1 over several shares
// would give everyone the key alone.
const (
	MaxShares    = 255
	minThreshold = 2
)

// Config is how the root key is protected. It lies in the data store in plain (P8: it holds no secret),
// since a sealed node must know how many shares to ask for.
type Config struct {
	Type      string // TypeStatic, TypeShamir
	Shares    int    // how many shares were made; 0 for a static key
	Threshold int    // how many of them are needed; 0 for a static key
}

type storedConfig struct {
	Format    int    `json:"format"`
	Type      string `json:"type"`
	Shares    int    `json:"shares,omitempty"`
	Threshold int    `json:"threshold,omitempty"`
}

// Validate reports what is wrong with the configuration, in the words of who typed it.
func (c Config) Validate() error {
	switch c.Type {
	case TypeStatic:
		if c.Shares != 0 || c.Threshold != 0 {
			return fmt.Errorf("%w: a static seal has no key shares", ErrMalformed)
		}
		return nil
	case TypeShamir:
		return checkSplit(c.Shares, c.Threshold)
	case "":
		return fmt.Errorf("%w: seal without a type", ErrMalformed)
	}
	return fmt.Errorf("%w: seal type %q is not known", ErrMalformed, c.Type)
}

// Marshal encodes the configuration for the store.
func (c Config) Marshal() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(storedConfig{configFormat, c.Type, c.Shares, c.Threshold})
}

// ParseConfig decodes what Marshal encoded: [ErrNewerFormat], [ErrMalformed].
func ParseConfig(data []byte) (Config, error) {
	var s storedConfig
	if err := json.Unmarshal(data, &s); err != nil {
		return Config{}, fmt.Errorf("seal configuration: %w: %w", ErrMalformed, err)
	}
	if s.Format > configFormat {
		return Config{}, fmt.Errorf("seal configuration: %w: format %d, this build knows %d", ErrNewerFormat, s.Format, configFormat)
	}
	if s.Format != configFormat {
		return Config{}, fmt.Errorf("seal configuration: %w: format %d", ErrMalformed, s.Format)
	}
	c := Config{Type: s.Type, Shares: s.Shares, Threshold: s.Threshold}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("seal configuration: %w", err)
	}
	return c, nil
}

func checkSplit(shares, threshold int) error {
	switch {
	case shares < 1 || shares > MaxShares:
		return fmt.Errorf("%w: key shares must be between 1 and %d, not %d", ErrMalformed, MaxShares, shares)
	case threshold < 1 || threshold > shares:
		return fmt.Errorf("%w: key threshold must be between 1 and the %d key shares, not %d", ErrMalformed, shares, threshold)
	case shares > 1 && threshold < minThreshold:
		return fmt.Errorf("%w: key threshold must be at least %d when there is more than one key share", ErrMalformed, minThreshold)
	}
	return nil
}
