package load

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Plan is an open-loop run.
type Plan struct {
	Targets []Target      // requests go to them in turn
	Rate    int           // requests per second, all targets together
	Writes  float64       // the part of them that is POST, 0 to 1
	Prefix  string        // entries are written below secret/data/<Prefix>/; a fresh one for every run
	Value   int           // bytes of a value; at least 32
	Timeout time.Duration // per request; default 60 s, beyond every hold
	Seed    uint64
}

// Target is a node to send to.
type Target struct {
	Name   string
	Client *Client
}

// Record is one request.
type Record struct {
	N         int
	Method    string
	Target    string
	Key       string        // below the prefix
	Scheduled time.Duration // from the run's start
	Sent      time.Duration
	Done      time.Duration
	Status    int    // 0 without an answer
	Node      string // X-Locum-Node
	Term      string // X-Locum-Term
	Processed string // of an error: "no", "unknown" or ""
	Err       string
	Wrong     string // a 2xx with the wrong content: what is wrong
}

// OK reports whether the request succeeded. A 2xx with a wrong answer did not.
func (r *Record) OK() bool { return r.Status/100 == 2 && r.Wrong == "" }

// Runner is a run in progress.
type Runner struct {
	plan  Plan
	start time.Time
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	records []Record
	stored  []string // keys whose write was acknowledged; reads choose among them
}

// Run starts a run, which lasts until Stop. Reads ask for entries whose write was acknowledged before.
func Run(plan Plan) *Runner {
	if plan.Timeout == 0 {
		plan.Timeout = time.Minute
	}
	r := &Runner{plan: plan, start: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	go r.schedule()
	return r
}

// Since is the time since the run's start, as in a Record.
func (r *Runner) Since() time.Duration { return time.Since(r.start) }

// Stop ends the schedule, waits for every answer and returns what was counted.
func (r *Runner) Stop() *Report {
	r.once.Do(func() { close(r.stop) })
	<-r.done
	return &Report{Plan: r.plan, Records: r.records, Until: r.Since()}
}

// schedule sends the n-th request at n/rate, or at once when that has passed.
func (r *Runner) schedule() {
	defer close(r.done)
	var flying sync.WaitGroup
	defer flying.Wait()
	random := rand.New(rand.NewPCG(r.plan.Seed, 1))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		at := time.Duration(n) * time.Second / time.Duration(r.plan.Rate)
		timer.Reset(at - r.Since())
		select {
		case <-r.stop:
			return
		case <-timer.C:
		}
		record := Record{N: n, Method: http.MethodGet, Scheduled: at}
		record.Key = r.choose(random)
		if record.Key == "" || random.Float64() < r.plan.Writes {
			record.Method, record.Key = http.MethodPost, fmt.Sprintf("k%d", n)
		}
		flying.Go(func() { r.one(record) })
	}
}

// choose picks an entry to read: half the time the newest, where a stale answer would show.
func (r *Runner) choose(random *rand.Rand) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.stored) == 0 {
		return ""
	}
	if random.IntN(2) == 0 {
		return r.stored[len(r.stored)-1]
	}
	return r.stored[random.IntN(len(r.stored))]
}

func (r *Runner) one(record Record) {
	target := r.plan.Targets[record.N%len(r.plan.Targets)]
	record.Target = target.Name
	ctx, cancel := context.WithTimeout(context.Background(), r.plan.Timeout)
	defer cancel()
	var body []byte
	if record.Method == http.MethodPost {
		body = fmt.Appendf(nil, `{"data":{"v":%q}}`, r.plan.value(record.Key))
	}
	record.Sent = r.Since()
	answer, err := target.Client.Do(ctx, record.Method, r.plan.path(record.Key), body)
	record.Done = r.Since()
	record.Status = answer.Status
	record.Node, record.Term = answer.Header.Get("X-Locum-Node"), answer.Header.Get("X-Locum-Term")
	switch {
	case err != nil:
		record.Err = err.Error()
	case record.Status/100 != 2:
		record.Err, record.Processed = describe(answer.Body)
	case record.Method == http.MethodGet:
		record.Wrong = r.plan.wrong(record.Key, answer.Body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record)
	if record.Method == http.MethodPost && record.OK() {
		r.stored = append(r.stored, record.Key)
	}
}

func (p *Plan) path(key string) string { return "/v1/secret/data/" + p.Prefix + "/" + key }

// value is what is written at a key: nobody else writes it anywhere.
func (p *Plan) value(key string) string {
	v := p.Prefix + "/" + key + "/"
	return v + strings.Repeat("x", max(0, p.Value-len(v)))
}

// wrong says what is wrong with a read of an entry that was written exactly once.
func (p *Plan) wrong(key string, body []byte) string {
	var e entry
	if err := json.Unmarshal(body, &e); err != nil {
		return "not JSON: " + err.Error()
	}
	if e.Data.Data.V != p.value(key) {
		return fmt.Sprintf("holds %.60q", e.Data.Data.V)
	}
	if e.Data.Metadata.Version != 1 {
		return fmt.Sprintf("is version %d", e.Data.Metadata.Version)
	}
	return ""
}
