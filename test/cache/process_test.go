package cache_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
)

// The nodes of these tests are processes of their own: this test binary, told by its environment to be one.

func TestMain(m *testing.M) {
	if hosts := os.Getenv("CACHE_TEST_HOSTS"); hosts != "" {
		if err := beNode(strings.Split(hosts, ",")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beNode runs a node, with its calls on a socket, until standard input ends.
func beNode(hosts []string) error {
	cfg := cache.Config{
		Hosts: hosts, Self: os.Getenv("CACHE_TEST_SELF"), AuthToken: "a token that only these know",
		ElectionTimeout: 500 * time.Millisecond,
	}
	if os.Getenv("CACHE_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", cfg.Self)
	}
	n, err := cache.New(cfg)
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.Register(&Calls{n}); err != nil {
		return err
	}
	ln, err := net.Listen("unix", os.Getenv("CACHE_TEST_SOCKET"))
	if err != nil {
		return err
	}
	go server.Accept(ln)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	return n.Run(ctx)
}

// Calls is what a test calls in a node's process.
type Calls struct{ n *cache.Node }

// Request and Answer are input and output as they travel.
type Request struct {
	Kind       uint8
	Key, Value string
	Level      cache.Level
	Read       cache.Read
	Version    uint64
}

// Answer says in Fate what became of it: "", "not done", "unknown" or "not found".
type Answer struct {
	Found   bool
	Value   string
	Version uint64
	Fate    string
	Error   string
}

// Do carries an operation out.
func (c *Calls) Do(in Request, out *Answer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	o, err := carry(ctx, c.n, input{kind: kind(in.Kind), key: in.Key, value: in.Value, level: in.Level, read: in.Read, version: in.Version})
	*out = Answer{Found: o.found, Value: o.value, Version: o.version}
	if err != nil {
		out.Error, out.Fate = err.Error(), "unknown"
		if errors.Is(err, cache.ErrNotDone) {
			out.Fate = "not done"
		}
	}
	return nil
}

// Health returns the node's health.
func (c *Calls) Health(_ int, out *cache.Health) error {
	*out = c.n.Health()
	return nil
}

type process struct {
	host, socket string
	cmd          *exec.Cmd
	mu           sync.Mutex
	client       *rpc.Client
}

func (p *process) rpc() (*rpc.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		client, err := rpc.Dial("unix", p.socket)
		if err != nil {
			return nil, err
		}
		p.client = client
	}
	return p.client, nil
}

func (p *process) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		_ = p.client.Close()
		p.client = nil
	}
}

var errUnknown = errors.New("unknown")

func (p *process) name() string { return p.host }

// call calls a node in its process. What was sent to one that died has an unknown outcome.
func (p *process) call(ctx context.Context, in input) (output, error) {
	client, err := p.rpc()
	if err != nil {
		return output{}, fmt.Errorf("%w: %w", cache.ErrNotDone, err)
	}
	var out Answer
	call := client.Go("Calls.Do", Request{uint8(in.kind), in.key, in.value, in.level, in.read, in.version}, &out, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return output{}, errUnknown
	}
	if call.Error != nil {
		p.drop()
		return output{}, errUnknown
	}
	switch out.Fate {
	case "not done":
		return output{}, cache.ErrNotDone
	case "unknown":
		return output{}, errUnknown
	}
	return output{found: out.Found, value: out.Value, version: out.Version}, nil
}

type fleet struct {
	t     *testing.T
	hosts []string
	dir   string
	mu    sync.Mutex
	procs map[string]*process
	count int
}

func newFleet(t *testing.T, n int) *fleet {
	f := &fleet{t: t, dir: t.TempDir(), procs: map[string]*process{}}
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f.hosts = append(f.hosts, ln.Addr().String())
		defer func() { _ = ln.Close() }()
	}
	return f
}

func (f *fleet) start(host string) {
	f.count++
	p := &process{host: host, socket: filepath.Join(f.dir, fmt.Sprint(f.count))}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), "CACHE_TEST_HOSTS="+strings.Join(f.hosts, ","), "CACHE_TEST_SELF="+host, "CACHE_TEST_SOCKET="+p.socket)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := p.cmd.StdinPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		_ = stdin.Close()
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	f.mu.Lock()
	f.procs[host] = p
	f.mu.Unlock()
}

func (f *fleet) kill(host string) {
	p := f.procs[host]
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.drop()
}

func (f *fleet) nodes() []node {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []node
	for _, p := range f.procs {
		all = append(all, p)
	}
	return all
}

func (f *fleet) health(host string) cache.Health {
	var h cache.Health
	if client, err := f.procs[host].rpc(); err == nil {
		if err := client.Call("Calls.Health", 0, &h); err != nil {
			f.procs[host].drop()
		}
	}
	return h
}

func (f *fleet) await(limit time.Duration, hosts ...string) {
	f.t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(limit); ; <-ticker.C {
		good := 0
		for _, h := range hosts {
			if f.health(h).Status == cache.Good {
				good++
			}
		}
		if good == len(hosts) {
			return
		}
		if time.Now().After(deadline) {
			for _, h := range hosts {
				f.t.Logf("%s: %+v", h, f.health(h))
			}
			f.t.Fatalf("the nodes are not all good after %v", limit)
		}
	}
}

func (f *fleet) leader() string {
	for _, h := range f.hosts {
		if f.health(h).State == cache.Leads {
			return h
		}
	}
	return f.hosts[0]
}

// insist carries out what may be carried out more than once, again for a while when it fails: an election that nobody caused but a busy
// machine is no fault.
func (p *process) insist(t *testing.T, in input) output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		out, err := p.call(t.Context(), in)
		if err == nil {
			return out
		}
		if pace(ctx, 10*time.Millisecond); ctx.Err() != nil {
			t.Fatal(in.key, err)
		}
	}
}

// TestHistoriesOfProcesses: three processes, of which one at a time is killed, frozen or restarted, the leader
// most often. Linearizable, nothing acknowledged at quorum lost (P11), over mutual TLS made from the token.
func TestHistoriesOfProcesses(t *testing.T) {
	f := newFleet(t, 3)
	for _, h := range f.hosts {
		f.start(h)
	}
	f.await(30*time.Second, f.hosts...)
	ctx, cancel := context.WithCancel(t.Context())
	r := newRecorder(len(f.hosts))
	wg := r.clients(ctx, 8, f.nodes)
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))
	end := time.Now().Add(duration(6*time.Second, 3*time.Minute))
	for time.Now().Before(end) {
		victim := f.leader()
		if rnd.IntN(3) == 0 {
			victim = f.hosts[rnd.IntN(3)]
		}
		switch p := f.procs[victim].cmd.Process; rnd.IntN(3) {
		case 0:
			if err := p.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			pace(ctx, time.Duration(100+rnd.IntN(4000))*time.Millisecond)
			if err := p.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		default:
			f.kill(victim)
			pace(ctx, time.Duration(rnd.IntN(1500))*time.Millisecond)
			f.start(victim)
		}
		f.await(40*time.Second, f.hosts...)
	}
	cancel()
	wg.Wait()
	r.check(t, 200)
}

// TestLeaderKilled: writes flow again within a second at the median, and none acknowledged at quorum is lost.
func TestLeaderKilled(t *testing.T) {
	f := newFleet(t, 3)
	for _, h := range f.hosts {
		f.start(h)
	}
	f.await(30*time.Second, f.hosts...)
	var took []time.Duration
	var written []string
	rounds, limit := 3, 5*time.Second // CI's machine is busy
	if os.Getenv("LOCUM_FAULTS") != "" {
		rounds, limit = 15, time.Second
	}
	for round := range rounds {
		leader := f.leader()
		other := f.procs[f.hosts[(slices.Index(f.hosts, leader)+1)%3]]
		for i := range 50 {
			key := fmt.Sprint(round, "-", i)
			other.insist(t, input{kind: put, key: key, value: key})
			written = append(written, key)
		}
		f.kill(leader)
		began := time.Now()
		for i := 0; ; i++ {
			key := fmt.Sprint(round, "-after-", i)
			if _, err := other.call(t.Context(), input{kind: put, key: key, value: key}); err == nil {
				written = append(written, key)
				break
			}
			if time.Since(began) > 20*time.Second {
				t.Fatal("no write in 20 s")
			}
		}
		took = append(took, time.Since(began))
		f.start(leader)
		f.await(40*time.Second, f.hosts...)
		for _, key := range written {
			if out := other.insist(t, input{kind: get, key: key, read: cache.Consistent}); out.value != key {
				t.Fatalf("%s is %+v", key, out)
			}
		}
	}
	slices.Sort(took)
	t.Logf("writes flowed again after %v", took)
	if median := took[len(took)/2]; median > limit {
		t.Errorf("at the median after %v", median)
	}
}

// TestMajorityRestarted: two processes at once, then all, are killed and started again. The cache forms anew by itself, and it is empty on
// all nodes: nobody shows what only one may still know (P11).
func TestMajorityRestarted(t *testing.T) {
	f := newFleet(t, 3)
	for _, h := range f.hosts {
		f.start(h)
	}
	f.await(30*time.Second, f.hosts...)
	for round, victims := range [][]string{f.hosts[1:], f.hosts} {
		key := fmt.Sprint("before", round)
		f.procs[f.hosts[round]].insist(t, input{kind: put, key: key, value: "v"})
		for _, h := range victims {
			_ = f.procs[h].cmd.Process.Kill()
		}
		for _, h := range victims {
			f.kill(h)
			f.start(h)
		}
		f.await(40*time.Second, f.hosts...)
		for _, h := range f.hosts {
			for _, read := range []cache.Read{cache.Local, cache.Consistent} {
				if out := f.procs[h].insist(t, input{kind: get, key: key, read: read}); out.found {
					t.Fatalf("round %d: %s has %+v", round, h, out)
				}
			}
			f.procs[h].insist(t, input{kind: put, key: "after", value: h})
		}
	}
}
