package stores

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/locum-ha/locum/internal/storeserver"
)

// restart is a crash and a start of a server.
func restart(p *storeserver.Process) func() error {
	return func() error {
		p.Kill()
		return p.Start()
	}
}

// PostgreSQL starts a server. It is restarted as planned: what a killed one leaves in shared memory keeps the next from starting
// for a while.
func PostgreSQL(t T) Server {
	p := storeserver.StartPostgreSQL(t)
	return Server{Addr: p.Addr, Restart: p.Restart, Block: func(address string) (string, string) {
		return "postgresql", fmt.Sprintf("  connection_url = %q\n", p.URL(address))
	}}
}

// S3 starts a fake of S3.
func S3(t T) Server {
	f := storeserver.StartFakeS3(t)
	return Server{Addr: strings.TrimPrefix(f.URL, "http://"), Block: func(address string) (string, string) {
		return "s3", fmt.Sprintf("  bucket = %q\n  endpoint = %q\n  region = \"us-east-1\"\n  s3_force_path_style = true\n  access_key = \"key\"\n  secret_key = \"secret\"\n",
			f.Bucket, "http://"+address)
	}}
}

// Etcd starts a server.
func Etcd(t T) Server {
	p := storeserver.StartEtcd(t)
	return Server{Addr: p.Addr, Restart: restart(p.Process), Block: func(address string) (string, string) {
		return "etcd", fmt.Sprintf("  endpoints = %q\n", "http://"+address)
	}}
}

// Consul starts an agent. Its sessions may be as short as two seconds unless real is set: then they last as a real one's do.
func Consul(t T, real bool) Server {
	settings, more := map[string]any(nil), "  session_ttl_min = \"2s\"\n"
	if real {
		settings, more = map[string]any{"session_ttl_min": "10s"}, ""
	}
	p := storeserver.StartConsul(t, settings)
	return Server{Addr: p.Addr, Restart: restart(p.Process), Block: func(address string) (string, string) {
		return "consul", fmt.Sprintf("  address = %q\n%s", address, more)
	}}
}

// ZooKeeper starts a server.
func ZooKeeper(t T) Server { return zooKeeper(storeserver.StartZooKeeper(t)) }

// LargeZooKeeper starts one that is to be measured.
func LargeZooKeeper(t T) Server { return zooKeeper(storeserver.StartLargeZooKeeper(t)) }

func zooKeeper(p *storeserver.ZooKeeper) Server {
	return Server{Addr: p.Addr, Restart: restart(p.Process), Block: func(address string) (string, string) {
		return "zookeeper", fmt.Sprintf("  address = %q\n", address)
	}}
}

// MariaDB starts a server.
func MariaDB(t T) Server {
	p := storeserver.StartMariaDB(t)
	return Server{Addr: p.Addr, Restart: restart(p.Process), Block: func(address string) (string, string) {
		return "mysql", fmt.Sprintf("  address = %q\n  username = \"locum\"\n  password = \"secret\"\n  database = \"locum\"\n", address)
	}}
}

// Redis starts a server, which keeps the lock only. It writes each change to disk before it answers.
func Redis(t T) *Server {
	p := storeserver.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	return &Server{Addr: p.Addr, Restart: restart(p.Process), Block: func(address string) (string, string) {
		return "redis", fmt.Sprintf("  address = %q\n", address)
	}}
}

// NATS starts a server, which keeps the lock only.
func NATS(t T) *Server {
	p := storeserver.StartNATS(t)
	return &Server{Addr: p.Addr, Restart: restart(p.Process), Block: func(address string) (string, string) {
		return "nats", fmt.Sprintf("  address = %q\n", "nats://"+address)
	}}
}

// Kubernetes starts a fake of its API, which keeps the lock only.
func Kubernetes(t T) *Server {
	const token = "the service account's"
	f := storeserver.StartFakeKubernetes(t, token)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatalf("kubernetes: %v", err)
	}
	return &Server{Addr: strings.TrimPrefix(f.URL, "http://"), Block: func(address string) (string, string) {
		return "kubernetes", fmt.Sprintf("  server = %q\n  namespace = \"default\"\n  token_file = %q\n", "http://"+address, file)
	}}
}

// DynamoDB starts a fake of it, which keeps the lock only.
func DynamoDB(t T) *Server {
	f := storeserver.StartFakeDynamoDB(t)
	return &Server{Addr: strings.TrimPrefix(f.URL, "http://"), Block: func(address string) (string, string) {
		return "dynamodb", fmt.Sprintf("  endpoint = %q\n  region = \"us-east-1\"\n  access_key = \"key\"\n  secret_key = \"secret\"\n", "http://"+address)
	}}
}
