package history

import (
	"fmt"
	"math"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Recorder collects operations of many clients.
type Recorder struct {
	start time.Time

	mu      sync.Mutex
	keys    map[string][]porcupine.Operation
	counts  Counts
	lastOK  time.Duration
	longest time.Duration
	seconds []int // answers in each second
}

// Counts says what a history is made of.
type Counts struct {
	Reads, Writes, CAS, Conflicts, Unknown, Refused int
}

// NewRecorder starts a history now.
func NewRecorder() *Recorder {
	return &Recorder{start: time.Now(), keys: make(map[string][]porcupine.Operation)}
}

// Call is an operation that was sent.
type Call struct {
	r      *Recorder
	client int
	in     Input
	at     time.Duration
}

// Begin notes that an operation is about to be sent.
func (r *Recorder) Begin(client int, in Input) *Call {
	return &Call{r: r, client: client, in: in, at: time.Since(r.start)}
}

// Answered ends the operation with its answer.
func (c *Call) Answered(out Output) {
	now := time.Since(c.r.start)
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	switch {
	case out.Conflict:
		c.r.counts.Conflicts++
	case c.in.Kind == Read:
		c.r.counts.Reads++
	case c.in.Kind == Write:
		c.r.counts.Writes++
	default:
		c.r.counts.CAS++
	}
	c.r.longest = max(c.r.longest, now-c.r.lastOK)
	c.r.lastOK = now
	for len(c.r.seconds) <= int(now/time.Second) {
		c.r.seconds = append(c.r.seconds, 0)
	}
	c.r.seconds[now/time.Second]++
	c.r.add(c, out, now)
}

// Unknown ends an operation that may have been carried out, or may be yet.
func (c *Call) Unknown() {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.counts.Unknown++
	if c.in.Kind != Read {
		c.r.add(c, Output{Unknown: true}, math.MaxInt64)
	}
}

// Refused ends an operation that was certainly not carried out.
func (c *Call) Refused() {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.counts.Refused++
}

func (r *Recorder) add(c *Call, out Output, end time.Duration) {
	r.keys[c.in.Key] = append(r.keys[c.in.Key], porcupine.Operation{
		ClientId: c.client, Input: c.in, Call: int64(c.at), Output: out, Return: int64(end)})
}

// Result is the verdict over a history.
type Result struct {
	Counts
	Keys    int
	Longest time.Duration // the longest time without any answered operation, the start included
	Seconds []int         // answers in each second
	Bad     []string      // keys whose history no order explains
	Open    []string      // keys whose check took too long: no verdict
	Drawing string        // a page that shows the first bad key, if asked for
}

// String is one line.
func (r Result) String() string {
	return fmt.Sprintf("%d keys: %d reads, %d writes, %d cas, %d conflicts, %d unknown, %d refused; longest without an answer %v",
		r.Keys, r.Reads, r.Writes, r.CAS, r.Conflicts, r.Unknown, r.Refused, r.Longest.Round(time.Millisecond))
}

// Keys returns the keys of the history.
func (r *Recorder) Keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]string, 0, len(r.keys))
	for key := range r.keys {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// Check looks for an order of each key's operations, for at most limit per key. A drawing of the first bad
// one is written to the file drawing, if not "".
func (r *Recorder) Check(limit time.Duration, drawing string) Result {
	keys := r.Keys()
	r.mu.Lock()
	defer r.mu.Unlock()
	result := Result{Counts: r.counts, Keys: len(keys), Longest: r.longest, Seconds: r.seconds}
	for _, key := range keys {
		verdict, info := porcupine.CheckOperationsVerbose(model, r.keys[key], limit)
		switch verdict {
		case porcupine.Ok:
		case porcupine.Unknown:
			result.Open = append(result.Open, key)
		default:
			result.Bad = append(result.Bad, key)
			if drawing != "" && result.Drawing == "" {
				if file, err := os.Create(drawing); err == nil {
					if porcupine.Visualize(model, info, file) == nil {
						result.Drawing = drawing
					}
					_ = file.Close()
				}
			}
		}
	}
	return result
}
