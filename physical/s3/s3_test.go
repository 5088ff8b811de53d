package s3

import (
	"context"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical/physicaltest"
)

func testConfig(f *storeserver.FakeS3) Config {
	return Config{
		Bucket: f.Bucket, Path: "test", Endpoint: f.URL, PathStyle: true, Region: "eu-central-1",
		AccessKey: "key", SecretKey: "secret", minTTL: 300 * time.Millisecond,
	}
}

func testStore(t *testing.T, f *storeserver.FakeS3) *Store {
	t.Helper()
	s, err := Open(t.Context(), testConfig(f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Every promise of package physical, against a fake that is as strict with conditions as S3 may be.
func TestConformance(t *testing.T) {
	harness := func(t testing.TB) physicaltest.Store {
		f := storeserver.StartFakeS3(t)
		return physicaltest.Store{
			Late: 1500 * time.Millisecond, // others have to watch for a TTL first
			Open: func(int) (physicaltest.Handle, error) { return Open(context.Background(), testConfig(f)) },
		}
	}
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, harness) })
	t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, harness) })
}
