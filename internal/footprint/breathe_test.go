package footprint

import "testing"

func TestPercentFor(t *testing.T) {
	for _, tc := range []struct {
		now     int
		n, live uint64
		want    int
	}{
		{100, 0, 8 << 20, 100}, {100, 2, 8 << 20, 100},
		{100, 3, 8 << 20, 300}, {300, 1, 8 << 20, 300}, {300, 0, 8 << 20, 100},
		{100, 9, 1 << 20, 400}, {100, 9, 100 << 20, 100}, {100, 9, 0, 400},
	} {
		if got := percentFor(tc.now, tc.n, tc.live); got != tc.want {
			t.Errorf("at %d, %d collections, %d live: %d, want %d", tc.now, tc.n, tc.live, got, tc.want)
		}
	}
}
