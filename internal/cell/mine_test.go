package cell

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// one is a cell that one process uses.
type one struct {
	data    []byte
	version string
}

func (o *one) Read(context.Context) ([]byte, string, error) { return o.data, o.version, nil }

func (o *one) Swap(_ context.Context, data []byte, version string) error {
	if version != o.version {
		return ErrChanged
	}
	o.data, o.version = data, o.version+"+"
	return nil
}

// P12: a process that loses its lock over and over keeps nothing of the grants of before; and never renews one that ran out.
func TestGrantsThatRanOut(t *testing.T) {
	now := boottime.Now()
	l := NewLock(&one{}, func() boottime.Instant { return now })
	for range 5 {
		for range 2 { // it must have seen the grant before for a TTL
			g, err := l.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Second, 0)
			now = now.Add(2 * time.Second)
			if errors.Is(err, physical.ErrHeld) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := l.Renew(t.Context(), g); !errors.Is(err, physical.ErrLost) {
					t.Fatalf("a grant that ran out is renewed: %v", err)
				}
			}
			break
		}
	}
	if len(l.mine) != 1 {
		t.Errorf("%d grants are kept", len(l.mine))
	}
}
