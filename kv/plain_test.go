package kv

import (
	"encoding/json"
	"testing"
)

// What is taken for valid JSON without a closer look is valid.
func FuzzPlainObject(f *testing.F) {
	for text, plain := range map[string]bool{
		`{"a":"b"}`: true, "{ \"a\" :\t\"b\" , \"\":\"é\"\n} ": true, `{"a":"b","c":"d"}`: true,
		`{}`: false, `{"a":1}`: false, `{"a":"\n"}`: false, `{"a":"b",}`: false, `{"a":"b"`: false, `{"a":"b"}}`: false, `{"a":"b"};`: false,
		`{"a","b"}`: false, `{"a":"b":"c"}`: false, `{,"a":"b"}`: false, "{\"a\":\"\x01\"}": false, `{"a:"b"}`: false, `{"`: false, `"`: false, ``: false,
	} {
		if plainObject([]byte(text)) != plain {
			f.Errorf("%s: plain is not %v", text, plain)
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if plainObject(b) && (!json.Valid(b) || b[0] != '{') {
			t.Errorf("%q is no object", b)
		}
	})
}
