package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// Waiting is what became of requests that lay in the sockets of a frozen node while another became active and
// acknowledged a newer value, and of those sent right after it woke.
type Waiting struct {
	Sent     int      // requests that waited
	OK       int      // of these, answered 2xx
	Refused  int      // answered otherwise, or the connection was closed
	Later    int      // reads answered 2xx in the second after the wake, over new connections
	Stale    []string // answers that held the old value
	Own      []string // 2xx answers that the woken node gave itself in its old term
	Twice    []string // writes that waited and were carried out more than once
	Lost     []string // writes that waited, were acknowledged, and are not there
	Pretends int      // status answers of the woken node in the old term that say it is active
	Slowest  time.Duration
}

// String is one line.
func (w *Waiting) String() string {
	return fmt.Sprintf("waiting at the frozen node: %d (ok %d, refused %d, slowest %v after the wake), later reads %d; stale %v, own %v, twice %v, lost %v, pretends %d\n",
		w.Sent, w.OK, w.Refused, w.Slowest.Round(time.Millisecond), w.Later, w.Stale, w.Own, w.Twice, w.Lost, w.Pretends)
}

// waitingEach is how many reads and how many writes wait.
const waitingEach = 20

// Freeze pauses the active node for a time (SIGSTOP, SIGCONT), under load at the others. Over connections that
// were warm before, requests are sent to it while it is frozen, after another node has acknowledged a newer
// value of what they read.
func Freeze(ctx context.Context, c *cluster.Cluster, l Load, d time.Duration) (*Outcome, error) {
	active, term := c.Active(ctx)
	if active == nil {
		return nil, errNobody
	}
	f := &freeze{c: c, node: active, term: term, path: "/v1/secret/data/" + unique()}
	f.survivor = load.NewClient(others(c, active)[0].Address(), c.Token)
	defer f.survivor.Close()
	if err := f.warm(ctx); err != nil {
		return nil, err
	}
	defer f.close()
	s := begin(c, l, others(c, active))
	out := &Outcome{Waiting: &f.result}
	if err := s.hit(ctx, active); err != nil {
		return nil, err
	}
	start := time.Now()
	err := f.during(ctx, out, start, d)
	err = errors.Join(err, active.Wake())
	if err != nil {
		s.abandon()
		return nil, err
	}
	f.after(ctx)
	if err := s.end(ctx, out); err != nil {
		return out, err
	}
	if err := f.verify(ctx); err != nil {
		return out, err
	}
	return out, c.WaitHealthy(ctx)
}

// freeze is one freeze of one node.
type freeze struct {
	c        *cluster.Cluster
	node     *cluster.Node
	term     uint64
	path     string // of the entry that is read; entries that are written lie beside it
	survivor *load.Client
	reads    []*load.Conn
	writes   []*load.Conn

	mu     sync.Mutex
	result Waiting
	acked  map[int]bool // writes that waited and were acknowledged
}

func (f *freeze) write(ctx context.Context, value string) error {
	answer, err := f.survivor.Do(ctx, http.MethodPost, f.path, fmt.Appendf(nil, `{"data":{"v":%q}}`, value))
	if err == nil && answer.Status/100 != 2 {
		err = fmt.Errorf("status %d: %.200s", answer.Status, answer.Body)
	}
	return err
}

// warm writes the old value and reads it over every connection that is used later.
func (f *freeze) warm(ctx context.Context) error {
	f.acked = make(map[int]bool)
	if err := f.write(ctx, "old"); err != nil {
		return err
	}
	client := load.NewClient(f.node.Address(), f.c.Token)
	for i := range 2 * waitingEach {
		conn, err := client.Dial(ctx)
		if err != nil {
			return err
		}
		if i < waitingEach {
			f.reads = append(f.reads, conn)
		} else {
			f.writes = append(f.writes, conn)
		}
		if answer, _, err := conn.Do(ctx, http.MethodGet, f.path, nil); err != nil || answer.Status != http.StatusOK {
			return fmt.Errorf("warming a connection: status %d, %w", answer.Status, err)
		}
	}
	return nil
}

func (f *freeze) close() {
	for _, conn := range append(f.reads, f.writes...) {
		conn.Close()
	}
}

// during is what happens while the node is frozen.
func (f *freeze) during(ctx context.Context, out *Outcome, start time.Time, d time.Duration) error {
	if err := f.node.Freeze(); err != nil {
		return err
	}
	if _, err := f.c.WaitActive(ctx, f.node); err != nil {
		return err
	}
	out.NewActive = time.Since(start)
	if err := f.write(ctx, "new"); err != nil {
		return fmt.Errorf("writing the newer value: %w", err)
	}
	sendCtx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i := range waitingEach {
		if err := f.reads[i].Send(sendCtx, http.MethodGet, f.path, nil); err != nil {
			return err
		}
		if err := f.writes[i].Send(sendCtx, http.MethodPost, f.entry(i), fmt.Appendf(nil, `{"data":{"v":"waited %d"}}`, i)); err != nil {
			return err
		}
	}
	f.result.Sent = 2 * waitingEach
	return pause(ctx, d-time.Since(start))
}

func (f *freeze) entry(i int) string { return f.path + "-" + strconv.Itoa(i) }

// after reads all answers, and asks the woken node over new connections for a second.
func (f *freeze) after(ctx context.Context) {
	woken := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range waitingEach {
		wg.Go(func() {
			answer, _, err := f.reads[i].Receive(ctx, http.MethodGet)
			f.count(answer, err, woken, true)
		})
		wg.Go(func() {
			answer, _, err := f.writes[i].Receive(ctx, http.MethodPost)
			if f.count(answer, err, woken, false) {
				f.mu.Lock()
				f.acked[i] = true
				f.mu.Unlock()
			}
		})
	}
	wg.Go(func() { f.poll(ctx, woken) })
	wg.Wait()
}

// count notes one answer to a request that waited, and reports whether it is a 2xx.
func (f *freeze) count(answer load.Answer, err error, woken time.Time, read bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.Slowest = max(f.result.Slowest, time.Since(woken))
	if err != nil || answer.Status/100 != 2 {
		f.result.Refused++
		return false
	}
	f.result.OK++
	f.judge(answer, read, "waited")
	return true
}

// judge looks into a 2xx answer of the woken node. The caller holds mu.
func (f *freeze) judge(answer load.Answer, read bool, which string) {
	if read {
		if v := load.ValueOf(answer.Body); v != "new" {
			f.result.Stale = append(f.result.Stale, fmt.Sprintf("%s: %q", which, v))
		}
	}
	if answer.Header.Get("X-Locum-Node") == f.node.Name && answer.Header.Get("X-Locum-Term") == strconv.FormatUint(f.term, 10) {
		f.result.Own = append(f.result.Own, which)
	}
}

// poll asks the woken node again and again for the value and for its role: for a second, and until it has answered some
// times or five seconds are over.
func (f *freeze) poll(ctx context.Context, woken time.Time) {
	client := load.NewClient(f.node.Address(), f.c.Token)
	defer client.Close()
	for later := 0; time.Since(woken) < time.Second || later < waitingEach && time.Since(woken) < 5*time.Second; {
		answer, err := client.Do(ctx, http.MethodGet, f.path, nil)
		leader, leaderErr := f.c.Leader(ctx, f.node)
		f.mu.Lock()
		if err == nil && answer.Status == http.StatusOK {
			f.result.Later++
			later++
			f.judge(answer, true, "after the wake")
		}
		if leaderErr == nil && leader.IsSelf && leader.Term == f.term {
			f.result.Pretends++
		}
		f.mu.Unlock()
	}
}

// verify looks at what the writes that waited did.
func (f *freeze) verify(ctx context.Context) error {
	for i := range waitingEach {
		versions, err := load.Versions(ctx, f.survivor, f.entry(i))
		if err != nil {
			return err
		}
		if versions > 1 {
			f.result.Twice = append(f.result.Twice, f.entry(i))
		}
		if versions == 0 && f.acked[i] {
			f.result.Lost = append(f.result.Lost, f.entry(i))
		}
	}
	return nil
}
