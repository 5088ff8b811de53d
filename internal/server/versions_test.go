package server

import "testing"

// "Leadership not lost to an older version by accident": what is older is known.
func TestNewer(t *testing.T) {
	rising := []string{"v0.9", "v1.0.0", "v1.0.0-3-gabcdef", "v1.0.1", "1.2", "v1.10.0", "v1.10.0-12-g1234567-dirty", "v2"}
	for i, a := range rising {
		for j, b := range rising {
			if got := newer(a, b); got != (i > j) {
				t.Errorf("newer(%q, %q) = %v", a, b, got)
			}
		}
	}
	for _, odd := range []string{"", "unknown", "a4127e6", "v1.2.3.4", "v1.-2"} {
		if newer(odd, "v1") || newer("v1", odd) {
			t.Errorf("%q was compared", odd)
		}
	}
}
