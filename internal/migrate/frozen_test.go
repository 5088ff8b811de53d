package migrate

import (
	"encoding/json"
	"testing"
)

// A migration that was interrupted is continued by a later version: the marker is frozen.
func TestFrozenMarker(t *testing.T) {
	const text = `{"format":1,"source":"a 3 00","after":"kv/data/a","entries":2,"bytes":10}`
	var m marker
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	if data, err := json.Marshal(m); err != nil || string(data) != text || keyMarker != "core/migration" || m.Format != markerFormat {
		t.Errorf("%s %s, %v, want %s", keyMarker, data, err, text)
	}
}
