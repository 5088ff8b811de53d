package dynamodb

import (
	"context"
	"errors"
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

// The service fails while the lock is held, renewed and watched: it is away for a while, and answers get lost.
func TestOutages(t *testing.T) {
	rounds := 1
	if storeserver.Faults() {
		rounds = 10
	}
	physicaltest.LockOutages(t, func(t testing.TB) physicaltest.Store {
		f := storeserver.StartFakeDynamoDB(t)
		proxies := storeserver.NewProxies(t, strings.TrimPrefix(f.URL, "http://"))
		faults := storeserver.AnswerFaults()
		return physicaltest.Store{
			Late: 5 * time.Second, // others have to watch for a TTL first, on a machine that may be busy
			Open: func(n int) (physicaltest.Handle, error) {
				cfg := testConfig(f)
				cfg.Endpoint = "http://" + proxies.Of(n).Addr()
				return Open(context.Background(), cfg)
			},
			Restart:    func() error { proxies.Restart(300 * time.Millisecond); return nil },
			CutAnswers: func(n int) func() { return proxies.Of(n).Disturb(faults) },
		}
	}, rounds)
}

// A connection that dies without a word costs the requests that are on it; the next one goes over another. (Over HTTP/2 it did not.)
func TestSilentlyDeadConnection(t *testing.T) {
	f := storeserver.StartFakeDynamoDB(t)
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

// What the service refuses is said with the right or the setting that it takes, and is no unknown outcome.
func TestRefusals(t *testing.T) {
	f := storeserver.StartFakeDynamoDB(t)
	s, err := Open(t.Context(), testConfig(f))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Acquire(t.Context(), physical.Record{Holder: "n"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]string{
		"AccessDeniedException":     `dynamodb:GetItem, dynamodb:PutItem and dynamodb:DescribeTable on the table "locks"`,
		"InvalidSignatureException": "secret_key",
		"ExpiredTokenException":     "have run out",
		"ResourceNotFoundException": "another region than eu-central-1",
	} {
		f.Refuse(kind)
		_, err := s.Renew(t.Context(), g)
		if !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrLost) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", kind, err, want)
		}
	}
}
