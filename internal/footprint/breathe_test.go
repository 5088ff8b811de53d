package footprint

import "testing"

func TestPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 8 << 20: 300, 24 << 20: 100, 100 << 20: 100} {
		if got := percentFor(Headroom, live); got != want {
			t.Errorf("%d live: %d, want %d", live, got, want)
		}
	}
}
