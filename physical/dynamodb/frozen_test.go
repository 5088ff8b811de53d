package dynamodb

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The item stays readable, and is written as it was. Its value is a cell's, see internal/cell.
func TestFrozenItem(t *testing.T) {
	const (
		before = `{"Key":{"S":"test"},"Value":{"B":"AP8="},"Version":{"N":"41"}}`
		after  = `{"Key":{"S":"test"},"Value":{"B":"/wA="},"Version":{"N":"42"}}`
	)
	written := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		answer := `{"Item":` + before + `}`
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".PutItem") {
			var put struct{ Item map[string]map[string]string }
			if err := json.NewDecoder(r.Body).Decode(&put); err != nil {
				t.Error(err)
			}
			text, _ := json.Marshal(put.Item)
			written <- string(text)
			answer = `{}`
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	cfg := Config{Table: "locks", Key: "test", Endpoint: server.URL, Region: "eu-central-1", AccessKey: "key", SecretKey: "secret"}
	client, transport, err := cfg.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	i := &item{client: client, table: cfg.Table, key: cfg.Key}
	data, version, err := i.Read(t.Context())
	if err != nil || string(data) != "\x00\xff" || version != "41" {
		t.Fatalf("%q, %q, %v", data, version, err)
	}
	if err := i.Swap(t.Context(), []byte{0xff, 0}, version); err != nil {
		t.Fatal(err)
	}
	if got := <-written; got != after {
		t.Errorf("the item is now %s, want %s", got, after)
	}
}
