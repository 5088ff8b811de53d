package stores

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/history"
	"github.com/locum-ha/locum/test/load"
)

// faults reports whether the long run was asked for: "make faults".
func faults() bool { return os.Getenv("LOCUM_FAULTS") != "" }

// wanted skips a test of stores none of which "make faults STORE=…" names.
func wanted(t *testing.T, names ...string) {
	t.Helper()
	only := strings.Fields(os.Getenv("LOCUM_STORE"))
	for _, name := range names {
		if len(only) == 0 || slices.Contains(only, name) {
			return
		}
	}
	t.Skipf("LOCUM_STORE names %v", only)
}

func TestPostgreSQL(t *testing.T) {
	wanted(t, "postgres")
	combined(t, NewSite(t, PostgreSQL(t), nil))
}

func TestEtcd(t *testing.T) {
	wanted(t, "etcd")
	combined(t, NewSite(t, Etcd(t), nil))
}

func TestConsul(t *testing.T) {
	wanted(t, "consul")
	combined(t, NewSite(t, Consul(t, false), nil))
}

func TestZooKeeper(t *testing.T) {
	wanted(t, "zookeeper")
	s := NewSite(t, ZooKeeper(t), nil)
	s.TTL = 4 * time.Second // twice its tick: no session is shorter
	combined(t, s)
}

func TestMySQL(t *testing.T) {
	wanted(t, "mysql")
	combined(t, NewSite(t, MariaDB(t), nil))
}

func TestS3(t *testing.T) {
	wanted(t, "s3")
	combined(t, NewSite(t, S3(t), nil))
}

// The entries in one store and the lock in another: the fence lies beside the entries. Each pair meets what can befall it on its own
// way, and all of it in "make faults".
func TestSplit(t *testing.T) {
	short := []happening{{"step-down", stepDown}, {"kill", kill}, {"cut off from the stores", cutStore}}
	happens := map[string][]happening{
		// "In split mode too: the fence lies in storage": a node that is frozen beyond its TTL is refused there.
		"S3AndDynamoDB":     {{"kill", kill}, {"freeze", freeze}, {"store restart", storeRestart}},
		"EtcdAndKubernetes": {{"step-down", stepDown}, {"kill", killReleased}, {"store restart", storeRestart}, {"kill", killReleased}},
	}
	for name, site := range map[string]func(t *testing.T) *Site{
		"S3AndConsul":         func(t *testing.T) *Site { lock := Consul(t, false); return NewSite(t, S3(t), &lock) },
		"PostgreSQLAndConsul": func(t *testing.T) *Site { lock := Consul(t, false); return NewSite(t, PostgreSQL(t), &lock) },
		"PostgreSQLAndS3":     func(t *testing.T) *Site { lock := S3(t); return NewSite(t, PostgreSQL(t), &lock) },
		"MySQLAndRedis":       func(t *testing.T) *Site { return NewSite(t, MariaDB(t), Redis(t)) },
		"EtcdAndNATS":         func(t *testing.T) *Site { return NewSite(t, Etcd(t), NATS(t)) },
		"S3AndDynamoDB":       func(t *testing.T) *Site { return NewSite(t, S3(t), DynamoDB(t)) },
		"EtcdAndKubernetes": func(t *testing.T) *Site {
			s := NewSite(t, Etcd(t), Kubernetes(t))
			s.TTL = 12 * time.Second // so that a lock that is released cannot be taken for one that ran out
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			wanted(t, strings.Fields(strings.ToLower(strings.NewReplacer("PostgreSQL", "postgres", "And", " ").Replace(name)))...)
			s := site(t)
			if faults() {
				combined(t, s)
				return
			}
			if happens[name] == nil {
				happens[name] = short
			}
			scenario(t, s, 1, happens[name])
		})
	}
}

// The rounds of the long run.
const longRounds = 5

// combined is P1, P3, P4 and P6 on one site: while clients work through all nodes, the active node steps down, is killed, is frozen
// beyond its lock's TTL, is cut off from the store alone and from the other nodes alone, and the store itself crashes. One
// order of all operations explains every answer, no acknowledged write is lost, none is carried out twice, and in no term
// two nodes have their writes accepted.
func combined(t *testing.T, s *Site) {
	rounds, happens := 1, []happening{
		{"step-down", stepDown}, {"kill", kill}, {"freeze", freeze}, {"store restart", storeRestart},
		{"cut off from the store", cutStore}, {"cut off from the other nodes", cutPeers},
	}
	if faults() {
		rounds, happens = longRounds, append(happens, happening{"kill of the whole tree", killTree})
	}
	scenario(t, s, rounds, happens)
}

// P7 on every store: the guardian of a node that was killed releases the lock, so nobody waits for its TTL, which is long here.
func TestGuardianReleases(t *testing.T) {
	if !faults() {
		t.Skip("a cluster on each store: with LOCUM_FAULTS=1")
	}
	for name, site := range map[string]func(t *testing.T) *Site{
		"etcd":      func(t *testing.T) *Site { return NewSite(t, Etcd(t), nil) },
		"consul":    func(t *testing.T) *Site { return NewSite(t, Consul(t, false), nil) },
		"zookeeper": func(t *testing.T) *Site { return NewSite(t, ZooKeeper(t), nil) },
		"postgres":  func(t *testing.T) *Site { return NewSite(t, PostgreSQL(t), nil) },
		"mysql":     func(t *testing.T) *Site { return NewSite(t, MariaDB(t), nil) },
		"s3":        func(t *testing.T) *Site { return NewSite(t, S3(t), nil) },
		"redis":     func(t *testing.T) *Site { return NewSite(t, PostgreSQL(t), Redis(t)) },
		"nats":      func(t *testing.T) *Site { return NewSite(t, Etcd(t), NATS(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			wanted(t, name)
			released(t, site(t))
		})
	}
}

func released(t *testing.T, s *Site) {
	s.TTL = 15 * time.Second // the longest that the default hold_timeout lets in
	c := cluster.New(t, s.Options())
	ctx, cancel := context.WithTimeout(t.Context(), s.TTL*2/3)
	defer cancel()
	start := time.Now()
	if err := kill(ctx, s, c); err != nil {
		t.Fatalf("the lock of a dead node was not released, TTL %v: %v", s.TTL, err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed, and healthy again without the TTL of %v: %v", s.TTL, time.Since(start).Round(time.Millisecond))
}

// happening is one thing that happens to a cluster.
type happening struct {
	name string
	do   func(context.Context, *Site, *cluster.Cluster) error
}

func scenario(t *testing.T, s *Site, rounds int, happens []happening) {
	if s.TTL == 0 {
		s.TTL = 2 * time.Second
	}
	c := cluster.New(t, s.Options())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	recorder := history.NewRecorder()
	const clients = 6
	wait := Work(ctx, c, recorder, clients, seed)
	plan := load.Plan{Rate: 60, Writes: .5, Prefix: fmt.Sprintf("load%d", seed), Value: 256, Seed: seed}
	for _, n := range c.Nodes {
		client := load.NewClient(n.Address(), c.Token)
		t.Cleanup(client.Close)
		plan.Targets = append(plan.Targets, load.Target{Name: n.Name, Client: client})
	}
	runner := load.Run(plan)

	for range rounds {
		for _, h := range happens {
			disturb(ctx, t, s, c, h.name, h.do)
		}
	}

	report := runner.Stop()
	stop()
	for _, err := range wait() {
		t.Error(err)
	}
	verdict(t, s, c, recorder, report, clients)
}

// disturb does one thing and waits until all is well again.
func disturb(ctx context.Context, t *testing.T, s *Site, c *cluster.Cluster, name string, do func(context.Context, *Site, *cluster.Cluster) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	start := time.Now()
	if err := do(ctx, s, c); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatalf("after %s: %v", name, err)
	}
	for _, n := range c.Nodes {
		if !n.Running() {
			t.Fatalf("after %s: %s has ended by itself: %s", name, n.Name, n.LogTail(3))
		}
	}
	t.Logf("%s: %v", name, time.Since(start).Round(time.Millisecond))
	after(ctx, 300*time.Millisecond)
}

// longestGap is how much longer than the lock's TTL nobody may be served, on a machine that tests share.
const longestGap = 8 * time.Second

func verdict(t *testing.T, s *Site, c *cluster.Cluster, recorder *history.Recorder, report *load.Report, client int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := ReadAll(ctx, c, recorder, client); err != nil {
		t.Error(err)
	}
	result := recorder.Check(time.Minute, filepath.Join(c.Dir(), "history.html"))
	t.Logf("%v", result)
	if len(result.Bad)+len(result.Open) > 0 {
		t.Errorf("not linearizable: %v, no verdict: %v; drawn in %s", result.Bad, result.Open, result.Drawing)
	}
	if limit := s.TTL + longestGap; result.Longest > limit {
		t.Errorf("no client was served for %v, want at most %v", result.Longest, limit)
	}
	if two := TwoWriters(report); len(two) > 0 {
		t.Errorf("two nodes wrote in one term: %v", two)
	}
	one := load.NewClient(c.Nodes[0].Address(), c.Token)
	defer one.Close()
	twice, err := report.Verify(ctx, one)
	if err != nil || len(twice.Twice)+len(twice.Lost) > 0 {
		t.Errorf("twice %v, lost %v, error %v", twice.Twice, twice.Lost, err)
	}
	t.Logf("%d requests of the load, %d failed: %v; %d writes verified", len(report.Records), report.Failed(""), report.Kinds(), twice.Writes)
	if twice.Writes < 50 {
		t.Errorf("only %d writes: the load did not run", twice.Writes)
	}
}

func active(ctx context.Context, c *cluster.Cluster) (*cluster.Node, error) { return c.WaitActive(ctx) }

func stepDown(ctx context.Context, _ *Site, c *cluster.Cluster) error {
	return c.StepDown(ctx, c.Nodes[0], "", 20*time.Second)
}

func kill(ctx context.Context, _ *Site, c *cluster.Cluster) error {
	n, err := active(ctx, c)
	if err != nil {
		return err
	}
	n.Kill()
	if _, err := c.WaitActive(ctx, n); err != nil {
		return err
	}
	return n.Start()
}

// killReleased is P7: the guardian of a node that crashed releases the lock, so that nobody waits until it runs out.
func killReleased(ctx context.Context, s *Site, c *cluster.Cluster) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.TTL/2, errors.New("nobody is active after half of the lock's TTL: it was not released"))
	defer cancel()
	if err := kill(ctx, s, c); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// killTree ends the active node with its guardian: nobody releases the lock, and it runs out.
func killTree(ctx context.Context, s *Site, c *cluster.Cluster) error {
	n, err := active(ctx, c)
	if err != nil {
		return err
	}
	n.KillTree()
	if _, err := c.WaitActive(ctx, n); err != nil {
		return err
	}
	return n.Start()
}

// freeze lasts until another node is active and a moment longer, in which the frozen one is known to be wrong about itself.
func freeze(ctx context.Context, _ *Site, c *cluster.Cluster) error {
	n, err := active(ctx, c)
	if err != nil {
		return err
	}
	if err := n.Freeze(); err != nil {
		return err
	}
	_, err = c.WaitActive(ctx, n)
	after(ctx, 200*time.Millisecond)
	if wake := n.Wake(); err == nil {
		err = wake
	}
	return err
}

func storeRestart(ctx context.Context, s *Site, _ *cluster.Cluster) error { return s.RestartStore(ctx) }

// cutStore: a node that cannot reach the store is not active for longer than its lease, and another takes over.
func cutStore(ctx context.Context, s *Site, c *cluster.Cluster) error {
	n, err := active(ctx, c)
	if err != nil {
		return err
	}
	heal := s.CutStore(n)
	defer heal()
	if _, err = c.WaitActive(ctx, n); err != nil {
		return err
	}
	if leader, err := c.Leader(ctx, n); err == nil && leader.IsSelf {
		return fmt.Errorf("%s says that it is active, beside another", n.Name)
	}
	return nil
}

// cutPeers: a node that the others cannot reach keeps the lock, and nobody else becomes active.
func cutPeers(ctx context.Context, s *Site, c *cluster.Cluster) error {
	n, err := active(ctx, c)
	if err != nil {
		return err
	}
	heal := s.CutPeers(n)
	after(ctx, s.TTL+500*time.Millisecond)
	heal()
	if now, err := active(ctx, c); err != nil || now != n {
		return fmt.Errorf("%s was cut off from the other nodes, and another is active: %w", n.Name, err)
	}
	return nil
}
