package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/fake"
	"github.com/locum-ha/locum/test/load"
)

// record lets 6 clients work on 3 keys of a server.
func record(t *testing.T, kv *fake.KV) Result {
	t.Helper()
	server := httptest.NewServer(kv)
	defer server.Close()
	r := NewRecorder()
	var wg sync.WaitGroup
	for id := range 6 {
		wg.Go(func() {
			client := load.NewClient(strings.TrimPrefix(server.URL, "http://"), "")
			defer client.Close()
			random := rand.New(rand.NewPCG(uint64(id), 7))
			seen := map[string]int{}
			for i := range 150 {
				key := fmt.Sprintf("k%d", random.IntN(3))
				in := Input{Kind: Kind(random.IntN(3)), Key: key, Value: fmt.Sprintf("%d-%d", id, i), Expect: seen[key]}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				out, ok, err := r.Do(ctx, client, id, in)
				cancel()
				if err != nil {
					t.Error(err)
				}
				if ok && !out.Conflict {
					seen[key] = out.Version
				}
			}
		})
	}
	wg.Wait()
	return r.Check(10*time.Second, "")
}

func TestCorrectServer(t *testing.T) {
	result := record(t, &fake.KV{})
	if len(result.Bad)+len(result.Open) != 0 || result.CAS == 0 || result.Conflicts == 0 {
		t.Errorf("%v, bad %v, open %v", result, result.Bad, result.Open)
	}
}

// Answers that get lost before or after the deed are no mistake.
func TestUnknownOutcomes(t *testing.T) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 1))
	kv := &fake.KV{Before: func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		dice := random.IntN(20)
		mu.Unlock()
		switch dice {
		case 0: // dies before
			panic(http.ErrAbortHandler)
		case 1: // refuses for certain
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"errors":["no active node"],"processed":"no"}`)
			return false
		}
		return true
	}}
	result := record(t, kv)
	if len(result.Bad)+len(result.Open) != 0 || result.Unknown == 0 || result.Refused == 0 {
		t.Errorf("%v, bad %v, open %v", result, result.Bad, result.Open)
	}
}

// Each mistake of a server is found.
func TestMistakesAreFound(t *testing.T) {
	var mu sync.Mutex
	n := 0
	rarely := func(string) bool { mu.Lock(); defer mu.Unlock(); n++; return n%100 == 50 }
	for name, kv := range map[string]*fake.KV{
		"twice": {Twice: rarely},
		"lost":  {Lose: rarely},
		"stale": {Stale: func(key string) int {
			if rarely(key) {
				return 1
			}
			return 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if result := record(t, kv); len(result.Bad) == 0 {
				t.Errorf("not found: %v", result)
			}
		})
	}
}
