package api

import (
	"bytes"
	"encoding/json"
	"testing"
)

var splitCases = []string{
	`{"data":{"a":1}}`, `{"data":{"a":1},"options":{"cas":0}}`, ` { "options" : {"cas":1} , "data" : { "a" : "}" } } `,
	`{"data":{"a":"\\"},"x":[1,{"y":"]"}]}`, `{"data":{"a":"\\\""}}`, `{"data":"\"","options":null}`, `{"data":null}`, `{"data":[1,2]}`,
	`{"x":1}`, `{}`, `[]`, ``, `{"data":{"a":1}`, `{"data":{"a":1}}x`, `{"data":{}} {`, `{"data":{},}`, `{"data":{},"data":{"b":1}}`, `{"Data":{}}`, `{"data":{},"DATA":{"b":1}}`,
	`{"d\u0061ta":{}}`, `{"data":{}"options":{}}`, `{"data" {}}`, `{"data":}`, `{"data":{},"x":}`, `{"data":{},"x":tru}`, `{"data":{},"x":1 2}`, `{"data":{},"":0}`,
	`{"data":"abc`, `{"data":{"a":"x}}`, `{"data":{"a":1]}`, `{"data":1}`, `{"data":-}`, "{\"data\":{\"a\":\"\xff\"}}", "{\"\xff\":1,\"data\":{}}",
}

// Where the shortcut answers, the long way answers the same.
func checkSplit(t *testing.T, body []byte) {
	t.Helper()
	data, options, ok := splitWrite(body)
	if !ok {
		return
	}
	if !json.Valid(data) { // checked by who takes the data
		return
	}
	var want struct {
		Data    json.RawMessage `json:"data"`
		Options json.RawMessage `json:"options"`
	}
	if err := json.Unmarshal(body, &want); err != nil {
		if options != nil && !json.Valid(options) { // decoded next, and refused there
			return
		}
		t.Fatalf("%q was accepted: %v", body, err)
	}
	if !bytes.Equal(data, want.Data) || !bytes.Equal(options, want.Options) {
		t.Errorf("%q: data %q options %q, want %q and %q", body, data, options, want.Data, want.Options)
	}
}

func TestSplitWrite(t *testing.T) {
	taken := 0
	for _, body := range splitCases {
		checkSplit(t, []byte(body))
		if _, _, ok := splitWrite([]byte(body)); ok {
			taken++
		}
	}
	if taken < 8 {
		t.Errorf("the shortcut was taken %d times", taken)
	}
}

func FuzzSplitWrite(f *testing.F) {
	for _, body := range splitCases {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkSplit(t, body) })
}

func BenchmarkSplitWrite(b *testing.B) {
	body := append(append([]byte(`{"data":{"value":"`), bytes.Repeat([]byte("x"), 1024)...), `"},"options":{"cas":0}}`...)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		splitWrite(body)
	}
}
