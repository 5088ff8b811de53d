package dynamodb

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

func testConfig(f *storeserver.FakeDynamoDB) Config {
	return Config{
		Table: "locks", Key: "test", Endpoint: f.URL, Region: "eu-central-1", AccessKey: "key", SecretKey: "secret",
		minTTL: 300 * time.Millisecond,
	}
}

// Every promise of physical.HABackend, against a fake that checks conditions in one step with the write.
func TestConformance(t *testing.T) {
	physicaltest.HABackend(t, func(t testing.TB) physicaltest.Store {
		f := storeserver.StartFakeDynamoDB(t)
		return physicaltest.Store{
			Late: 1500 * time.Millisecond, // others have to watch for a TTL first
			Open: func(int) (physicaltest.Handle, error) { return Open(context.Background(), testConfig(f)) },
		}
	})
}

// Two clusters in one table have locks of their own; an item that is not Locum's is left alone.
func TestKeys(t *testing.T) {
	f := storeserver.StartFakeDynamoDB(t)
	for _, key := range []string{"one", "two"} {
		cfg := testConfig(f)
		cfg.Key = key
		s, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if g, err := s.Acquire(t.Context(), physical.Record{Holder: "n"}, time.Second, 0); err != nil || g.Term() != 1 {
			t.Errorf("%s: %+v, %v", key, g, err)
		}
	}
}

// What is configured by halves is refused before any request.
func TestConfig(t *testing.T) {
	_, err := Open(t.Context(), Config{AccessKey: "key"})
	if err == nil || !strings.Contains(err.Error(), "access_key and secret_key go together") {
		t.Errorf("got error %v", err)
	}
}
