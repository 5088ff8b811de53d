package cell

import (
	"encoding/json"
	"testing"
	"time"
)

// What a cell holds stays readable: this is frozen.
func TestFrozenValue(t *testing.T) {
	const text = `{"format":1,"record":{"holder":"id","name":"node","term":7},"ttl_ns":5000000000,"nonce":"AP8=","beat":9}`
	v, err := parse([]byte(text), "1")
	if err != nil || v.Record.Holder != "id" || v.Record.Term != 7 || v.TTL != 5*time.Second || v.Beat != 9 {
		t.Fatalf("%+v, %v", v, err)
	}
	if data, err := json.Marshal(v); err != nil || string(data) != text {
		t.Errorf("%s, %v, want %s", data, err, text)
	}
	if _, err := parse([]byte(`{"format":2}`), "1"); err == nil {
		t.Error("a newer format is taken")
	}
}
