package load

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/fake"
)

// run sends 500/s of both methods to a server for as long as during says, and verifies it.
func run(t *testing.T, kv *fake.KV, during func(r *Runner)) (*Report, Twice) {
	t.Helper()
	server := httptest.NewServer(kv)
	t.Cleanup(server.Close)
	client := NewClient(strings.TrimPrefix(server.URL, "http://"), "token")
	t.Cleanup(client.Close)
	r := Run(Plan{Targets: []Target{{Name: "a", Client: client}, {Name: "b", Client: client}},
		Rate: 500, Writes: .5, Prefix: "p", Value: 64, Timeout: 5 * time.Second})
	during(r)
	report := r.Stop()
	kv.Before = nil
	twice, err := report.Verify(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	return report, twice
}

func wait(d time.Duration) { <-time.After(d) }

func TestCorrectServer(t *testing.T) {
	report, twice := run(t, &fake.KV{}, func(*Runner) { wait(time.Second) })
	if n, want := float64(len(report.Records)), 500*report.Until.Seconds(); n < .9*want || n > 1.12*want {
		t.Errorf("%v requests in %v, want %v", n, report.Until, want)
	}
	if report.Failed("") != 0 || len(twice.Twice) != 0 || len(twice.Lost) != 0 || twice.Applied != twice.Writes || twice.Writes < 150 {
		t.Errorf("%+v\n%v", twice, report)
	}
	if gap := report.Gap("", 0, 0); gap > 2*time.Second {
		t.Errorf("gap %v", gap)
	}
}

// Each mistake of a server is found.
func TestMistakesAreFound(t *testing.T) {
	some := func(key string) bool { return strings.HasSuffix(key, "7") }
	t.Run("twice", func(t *testing.T) {
		if _, twice := run(t, &fake.KV{Twice: some}, func(*Runner) { wait(300 * time.Millisecond) }); len(twice.Twice) == 0 {
			t.Error("not found")
		}
	})
	t.Run("lost", func(t *testing.T) {
		if _, twice := run(t, &fake.KV{Lose: some}, func(*Runner) { wait(300 * time.Millisecond) }); len(twice.Lost) == 0 {
			t.Error("not found")
		}
	})
	t.Run("no answer and refusal", func(t *testing.T) {
		var n atomic.Int32
		kv := &fake.KV{Before: func(w http.ResponseWriter, r *http.Request) bool {
			switch n.Add(1) % 10 {
			case 3:
				panic(http.ErrAbortHandler) // closes the connection: Go's client would send a GET again
			case 5:
				w.WriteHeader(http.StatusTemporaryRedirect)
				return false
			}
			return true
		}}
		report, _ := run(t, kv, func(*Runner) { wait(500 * time.Millisecond) })
		if failed, all := report.Failed(""), len(report.Records); failed != all/10*2 && failed != (all+9)/10*2 && failed != all/10*2+1 {
			t.Errorf("%d of %d failed, want a fifth\n%v", failed, all, report)
		}
	})
	t.Run("pause", func(t *testing.T) {
		var paused atomic.Bool
		kv := &fake.KV{Before: func(http.ResponseWriter, *http.Request) bool {
			for paused.Load() {
				wait(time.Millisecond)
			}
			return true
		}}
		report, _ := run(t, kv, func(*Runner) {
			wait(300 * time.Millisecond)
			paused.Store(true)
			wait(400 * time.Millisecond)
			paused.Store(false)
			wait(300 * time.Millisecond)
		})
		if gap := report.Gap("", 0, 0); gap < 300*time.Millisecond || gap > 5*time.Second || report.Failed("") != 0 {
			t.Errorf("gap %v, want 400 ms; %v", gap, report)
		}
	})
}

func TestSaturate(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 1024))
	}))
	t.Cleanup(server.Close)
	result, err := Saturate([]string{strings.TrimPrefix(server.URL, "http://")}, 4, 300*time.Millisecond, GET("/", ""))
	if err != nil || result.Failed != 0 || result.Requests < 100 || result.Quantile(.5) == 0 {
		t.Errorf("%+v, %v", result, err)
	}
}
