package keyed

import (
	"errors"
	"testing"
)

// Records that were stored stay readable: these are frozen.
func TestFrozenRecord(t *testing.T) {
	for _, text := range []string{
		`{"format":1,"state":"running","fingerprint":"cA==","caller":"Yw==","term":3,"attempt":"i/1","expires":"2026-11-20T10:00:00Z"}`,
		`{"format":1,"state":"done","fingerprint":"cA==","caller":"Yw==","term":3,"attempt":"i/1","expires":"2026-11-20T10:00:00Z",` +
			`"answer":{"status":201,"header":{"X":["y"]},"body":"Yg==","trailer":{"Z":["0"]},"dropped":5}}`,
	} {
		r, err := decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := r.encode(); err != nil || string(data) != text {
			t.Errorf("%s, %v, want %s", data, err, text)
		}
	}
	if _, err := decode([]byte(`{"format":2}`)); !errors.Is(err, errFormat) {
		t.Errorf("a newer format: %v", err)
	}
}
