package stores

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// Issue 4, point 5: "locum operator migrate: copies all entries from one storage to another offline, resumable, verified, with
// progress; starts a new lock lineage", between real stores, and killed on its way.
func TestMigrate(t *testing.T) {
	for name, pair := range map[string]func(t *testing.T) (from, to Server){
		"PostgreSQLToEtcd":  func(t *testing.T) (from, to Server) { return PostgreSQL(t), Etcd(t) },
		"EtcdToConsul":      func(t *testing.T) (from, to Server) { return Etcd(t), Consul(t, false) },
		"ConsulToZooKeeper": func(t *testing.T) (from, to Server) { return Consul(t, false), ZooKeeper(t) },
		"ZooKeeperToMySQL":  func(t *testing.T) (from, to Server) { return ZooKeeper(t), MariaDB(t) },
		"MySQLToS3":         func(t *testing.T) (from, to Server) { return MariaDB(t), S3(t) },
		"S3ToPostgreSQL":    func(t *testing.T) (from, to Server) { return S3(t), PostgreSQL(t) },
	} {
		t.Run(name, func(t *testing.T) {
			wanted(t, strings.Fields(strings.ToLower(strings.NewReplacer("PostgreSQL", "postgres", "To", " ").Replace(name)))...)
			if !faults() && name != "PostgreSQLToEtcd" {
				t.Skip("another pair of stores: with LOCUM_FAULTS=1")
			}
			from, to := pair(t)
			migrated(t, from, to)
		})
	}
}

// contents are entries in folders within folders, with names that stores escape, and a large one.
func contents() map[string]string {
	all := map[string]string{}
	for i := range 120 {
		all[fmt.Sprintf("many/%d/entry-%d", i%7, i)] = fmt.Sprint("value ", i)
	}
	for _, name := range []string{"a", "a/b", "a/b/c", "a.b", "a b", "ä%2F", "A", "zookeeper/x", "_", "~", "many.more"} {
		all["odd/"+name] = name
	}
	all["large"] = strings.Repeat("0123456789abcdef", 12<<10) // 192 KiB
	return all
}

func entryPath(name string) string {
	return "/v1/secret/data/" + strings.NewReplacer("%", "%25", " ", "%20", "ä", "%C3%A4").Replace(name)
}

func migrated(t *testing.T, from, to Server) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	now, ttl := from, "2s"
	if strings.Contains(t.Name(), "ZooKeeper") {
		ttl = "4s" // twice its tick
	}
	c := cluster.New(t, cluster.Options{
		Nodes: 1, Storage: func(n *cluster.Node) string { return now.Direct().Storage(n) },
		// The new store knows a fence and no lock: the first node waits for a TTL.
		Extra: func(*cluster.Node) string { return fmt.Sprintf("ha {\n  lock_ttl = %q\n}\n", ttl) },
	})
	node, all := c.Nodes[0], contents()
	client := load.NewClient(node.Address(), c.Token)
	for name, value := range all {
		body, _ := json.Marshal(map[string]any{"data": map[string]string{"v": value}})
		if answer, err := client.Do(ctx, http.MethodPost, entryPath(name), body); err != nil || answer.Status/100 != 2 {
			t.Fatalf("writing %s: %+v, %v", name, answer.Status, err)
		}
	}
	client.Close()
	before, err := c.Leader(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.StopAll(30 * time.Second); err != nil {
		t.Fatal(err)
	}

	slow := storeserver.NewProxy(t, from.Addr)
	source, sourceBody := from.Block(slow.Addr())
	destination, destinationBody := to.Block(to.Addr)
	file := filepath.Join(t.TempDir(), "migrate.hcl")
	text := fmt.Sprintf("storage_source %q {\n%s}\nstorage_destination %q {\n%s}\n", source, sourceBody, destination, destinationBody)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := cluster.Binary()
	if err != nil {
		t.Fatal(err)
	}
	slow.Set(storeserver.Fault{Delay: 8 * time.Millisecond})
	killedOnItsWay(ctx, t, exec.CommandContext(ctx, binary, "operator", "migrate", "-config", file))
	slow.Heal()
	again := exec.CommandContext(ctx, binary, "operator", "migrate", "-format=json", "-config", file)
	var errors bytes.Buffer
	again.Stderr = &errors
	output, err := again.Output()
	var result struct {
		Entries int
		Resumed bool
		Lineage string
		Term    uint64
	}
	if err != nil || json.Unmarshal(output, &result) != nil {
		t.Fatalf("the second run: %v: %s%s", err, output, errors.Bytes())
	}
	if !result.Resumed || result.Entries < len(all) || result.Lineage == "" || result.Term <= before.Term {
		t.Errorf("the second run did %+v; there are %d entries at least, and the last term was %d", result, len(all), before.Term)
	}

	now = to
	if err := c.Move(node); err != nil { // writes its configuration anew
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := c.Leader(ctx, node)
	if err != nil || after.Term <= result.Term {
		t.Errorf("in the new store the term is %d, want more than %d; %v", after.Term, result.Term, err)
	}
	client = load.NewClient(node.Address(), c.Token)
	defer client.Close()
	for name, value := range all {
		answer, err := client.Do(ctx, http.MethodGet, entryPath(name), nil)
		if err != nil || answer.Status != http.StatusOK || load.ValueOf(answer.Body) != value {
			t.Errorf("%s: status %d, %v: %.80s", name, answer.Status, err, answer.Body)
		}
	}
}

// killedOnItsWay kills a migration when it tells of its progress, as it does once a second.
func killedOnItsWay(ctx context.Context, t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	output, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	told := ""
	for lines.Scan() && told == "" {
		if strings.HasPrefix(lines.Text(), "copied ") && strings.Contains(lines.Text(), " entries, ") {
			told = lines.Text()
			_ = cmd.Process.Kill()
		} else {
			t.Logf("migrate says: %s", lines.Text())
		}
	}
	err = cmd.Wait()
	if told == "" || err == nil || ctx.Err() != nil {
		t.Fatalf("the first run ended with %v and told %q", err, told)
	}
	t.Logf("killed after %q", told)
}
