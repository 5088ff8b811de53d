package s3

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
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

// The service fails while it is used, as it seems to each node through a proxy of its own. P1 for a writer that is frozen beyond its
// TTL, between deciding to write and writing, is among it.
func TestOutages(t *testing.T) {
	rounds := 1
	if storeserver.Faults() {
		rounds = 10
	}
	physicaltest.Outages(t, func(t testing.TB) physicaltest.Store {
		f := storeserver.StartFakeS3(t)
		proxies := storeserver.NewProxies(t, strings.TrimPrefix(f.URL, "http://"))
		faults := storeserver.AnswerFaults()
		return physicaltest.Store{
			Late: 1500 * time.Millisecond, // others have to watch for a TTL first
			Open: func(n int) (physicaltest.Handle, error) {
				cfg := testConfig(f)
				cfg.Endpoint = "http://" + proxies.Of(n).Addr()
				return Open(context.Background(), cfg)
			},
			Restart:    func() error { proxies.Restart(300 * time.Millisecond); return nil },
			Isolate:    func(n int) func() { proxies.Of(n).Stall(); return proxies.Of(n).Heal },
			CutAnswers: func(n int) func() { return proxies.Of(n).Disturb(faults) },
		}
	}, rounds)
}

// A connection that dies without a word costs the requests that are on it; the next one goes over another. (Over HTTP/2 it did not.)
func TestSilentlyDeadConnection(t *testing.T) {
	f := storeserver.StartFakeS3(t)
	addr, ca := storeserver.StartHTTP2(t, f)
	proxy := storeserver.NewProxy(t, addr)
	cfg := testConfig(f)
	cfg.Endpoint, cfg.TLS.CAFile = "https://"+proxy.Addr(), ca
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storeserver.DiesSilently(t, proxy, callTimeout/2, physical.ErrNoHolder, func(ctx context.Context) error {
		_, err := s.Holder(ctx)
		return err
	})
}

// cutting carries requests out and loses the answers of some swaps.
type cutting struct {
	to   http.RoundTripper
	left atomic.Int64
}

func (c *cutting) next(n int64) { c.left.Store(n) }

func (c *cutting) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.to.RoundTrip(r)
	if err == nil && r.Header.Get("If-Match") != "" && c.left.Add(-1) >= 0 {
		_ = response.Body.Close()
		return nil, errors.New("connection reset by peer")
	}
	return response, err
}

// clientOver is the client of this configuration over another transport.
func (c Config) clientOver(t *testing.T, over http.RoundTripper) *awss3.Client {
	t.Helper()
	client, _, err := c.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return awss3.New(client.Options(), func(o *awss3.Options) { o.HTTPClient = &http.Client{Transport: over} })
}
