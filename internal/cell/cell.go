package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// ErrChanged says that a Swap was refused since the version is not the present one: nothing was written.
var ErrChanged = errors.New("changed by another")

// Cell is one value that is swapped by its version.
type Cell interface {
	// Read returns the value and its version; an empty version and no value while there is none yet. It must be
	// current: a Swap that returned before the call began is seen.
	Read(ctx context.Context) (data []byte, version string, err error)

	// Swap replaces the value of this version ("": there is none yet). It makes one attempt, and returns
	// ErrChanged if the present version is another one. An unclear outcome is physical.ErrUnknown; every other
	// error says that nothing was written.
	Swap(ctx context.Context, data []byte, version string) error
}

// Waiter is a Cell that can tell of a change.
type Waiter interface {
	Cell
	// Wait returns when the version may be another one than this, or when ctx ends.
	Wait(ctx context.Context, version string) error
}

// format is that of value; a value of a newer format is left alone.
const format = 1

// value is what the cell holds.
type value struct {
	Format int             `json:"format"`
	Record physical.Record `json:"record"`
	TTL    time.Duration   `json:"ttl_ns"`
	Nonce  []byte          `json:"nonce,omitempty"` // of the grant in force
	Beat   uint64          `json:"beat"`            // counts the renewals
}

func (v value) held() bool { return v.Record.Holder != "" }

// is reports whether g is the grant in force.
func (v value) is(g physical.Grant) bool {
	return v.held() && v.Record.Holder == g.Record.Holder && v.Record.Term == g.Record.Term && string(v.Nonce) == string(g.Token)
}

func parse(data []byte, version string) (value, error) {
	var v value
	if version == "" {
		return value{Format: format}, nil
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("the value of the HA lock is not Locum's: %w", err)
	}
	if v.Format != format {
		return v, fmt.Errorf("the value of the HA lock has format %d and this version knows %d", v.Format, format)
	}
	return v, nil
}

// Describe tells who holds the lock by this value, and for how long since its last change, for stores that show it to people.
func Describe(data []byte) (physical.Record, time.Duration) {
	v, err := parse(data, "written")
	if err != nil {
		return physical.Record{}, 0
	}
	return v.Record, v.TTL
}
