package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

var holder = physical.Record{Holder: "a", Name: "node a"}

func mustOpen(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// eventually waits until ok returns nil.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(15 * time.Second); ; <-ticker.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// With WaitReplicas a lock counts only when a replica has it; without the replica it is given back, and a renewal leaves
// the grant as it was. A replica itself refuses.
func TestWaitReplicas(t *testing.T) {
	master := storeserver.StartRedis(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := storeserver.StartRedis(t, "--replicaof", host+" "+port)
	s := mustOpen(t, Config{Addresses: []string{master.Addr}, WaitReplicas: 1, WaitTimeout: 5 * time.Second})
	var g physical.Grant
	eventually(t, func() (err error) {
		g, err = s.Acquire(t.Context(), holder, time.Minute, 7)
		if err != nil && !errors.Is(err, physical.ErrUnavailable) {
			t.Fatalf("before the replica is connected: %v", err)
		}
		return err
	})
	if g.Term() < 8 {
		t.Errorf("term %d, want one above 7", g.Term())
	}
	if _, err := s.Renew(t.Context(), g); err != nil {
		t.Fatalf("renew: %v", err)
	}
	onReplica := mustOpen(t, Config{Addresses: []string{replica.Addr}})
	if r, err := onReplica.Holder(t.Context()); err != nil || r != g.Record {
		t.Errorf("the replica says %+v, %v", r, err)
	}
	if err := onReplica.Release(t.Context(), g, ""); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("a write on a replica: %v", err)
	}
	replica.Kill()
	s = mustOpen(t, Config{Addresses: []string{master.Addr}, WaitReplicas: 1, WaitTimeout: 200 * time.Millisecond})
	if _, err := s.Renew(t.Context(), g); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("renew without the replica: %v", err)
	}
	if r, err := s.Holder(t.Context()); err != nil || r != g.Record {
		t.Errorf("after a renewal that does not count: %+v, %v", r, err)
	}
	if err := s.Release(t.Context(), g, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), holder, time.Minute, 0); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("acquire without the replica: %v", err)
	}
	if r, err := s.Holder(t.Context()); !errors.Is(err, physical.ErrNoHolder) {
		t.Errorf("after an acquisition that does not count: %+v, %v", r, err)
	}
}

// A lock that too few replicas have and that cannot be given back is perhaps held: that is no "was not carried out".
func TestWaitReplicasNotGivenBack(t *testing.T) {
	server := storeserver.StartRedis(t)
	admin := client.NewClient(&client.Options{Addr: server.Addr})
	defer admin.Close()
	args := []any{"ACL", "SETUSER", "locum"}
	for word := range strings.FieldsSeq("on >secret ~{locum}:* &{locum}:* " + commands + " -del") {
		args = append(args, word)
	}
	if err := admin.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Addresses: []string{server.Addr}, Username: "locum", Password: "secret", WaitReplicas: 1, WaitTimeout: 50 * time.Millisecond})
	if _, err := s.Acquire(t.Context(), holder, time.Minute, 0); !errors.Is(err, physical.ErrUnknown) || !strings.Contains(err.Error(), "too few replicas") {
		t.Errorf("acquire: %v", err)
	}
	if r, err := s.Holder(t.Context()); err != nil || r.Holder != holder.Holder {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
}

// Through TLS, as a user with no more rights than the docs name, with a password from a file that changes.
func TestTLSAndRights(t *testing.T) {
	cert := storeserver.NewCertificate(t, "")
	secure := storeserver.Loopback(storeserver.FreePort(t))
	_, port, _ := net.SplitHostPort(secure)
	server := storeserver.StartRedis(t, "--tls-port", port, "--tls-cert-file", cert.CertFile, "--tls-key-file", cert.KeyFile,
		"--tls-ca-cert-file", cert.CertFile, "--tls-auth-clients", "no")
	admin := client.NewClient(&client.Options{Addr: server.Addr})
	defer admin.Close()
	const rights = "on >secret-1 ~{locum}:* &{locum}:* " + commands
	args := []any{"ACL", "SETUSER", "locum"}
	for word := range strings.FieldsSeq(rights) {
		args = append(args, word)
	}
	if err := admin.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Addresses: []string{secure}, Username: "locum", Password: "secret-1", ClientTLS: physical.ClientTLS{CAFile: cert.CertFile}}
	s := mustOpen(t, cfg)
	g, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	if g, err = s.Renew(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	woken := make(chan physical.Record, 1)
	go func() {
		r, _ := s.Watch(ctx, g.Record)
		woken <- r
	}()
	if err := s.Release(t.Context(), g, "b"); err != nil {
		t.Fatal(err)
	}
	if r := <-woken; r.Next != "b" {
		t.Errorf("the watcher woke with %+v", r)
	}
	eventually(t, func() error {
		s.ear.mu.Lock()
		defer s.ear.mu.Unlock()
		if !s.ear.up {
			return errors.New("the subscription is not allowed")
		}
		return nil
	})
	cfg.ClientTLS = physical.ClientTLS{}
	cfg.TLS = true
	if _, err := open(cfg); err == nil {
		t.Error("a server whose certificate nobody vouches for was believed")
	}
	cfg.TLS = false
	if _, err := open(cfg); !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "tls = true") {
		t.Errorf("without TLS: %v", err)
	}
}

// The docs name the rights, and an error does, that the test above gives.
func TestRightsInTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/stores/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(strings.Fields(string(page)), " "), commands) {
		t.Errorf("docs/stores/redis.md does not say %q", commands)
	}
	if err := refused("NOPERM no"); !strings.Contains(err.Error(), commands) {
		t.Errorf("the error does not: %v", err)
	}
}

// A user who lacks a right is told of it, whatever the call.
func TestMissingRights(t *testing.T) {
	server := storeserver.StartRedis(t)
	admin := client.NewClient(&client.Options{Addr: server.Addr})
	defer admin.Close()
	mustOpen(t, Config{Addresses: []string{server.Addr}}) // loads the scripts
	for name, rights := range map[string]string{
		"other keys": "~other:* &{locum}:* " + commands, "no scripts": "~{locum}:* &{locum}:* " + commands + " -@scripting", "read only": "~{locum}:* &{locum}:* +@read +@connection +info",
	} {
		user := strings.ReplaceAll(name, " ", "")
		args := []any{"ACL", "SETUSER", user, "on", ">right"}
		for word := range strings.FieldsSeq(rights) {
			args = append(args, word)
		}
		if err := admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		s, err := open(Config{Addresses: []string{server.Addr}, Username: user, Password: "right"})
		if err == nil {
			_, err = s.Acquire(t.Context(), holder, time.Minute, 0)
			_ = s.Close()
		}
		if err == nil || errors.Is(err, physical.ErrUnknown) || !strings.Contains(err.Error(), "NOPERM") || !strings.Contains(err.Error(), commands) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// "A node that meets a newer format says so and stays standby."
func TestNewerFormat(t *testing.T) {
	server := storeserver.StartRedis(t)
	s := mustOpen(t, Config{Addresses: []string{server.Addr}})
	g, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	fields := s.client.HGetAll(t.Context(), s.keys[1]).Val()
	if fields["format"] != "1" || fields["term"] != "1" || len(fields) != 3 {
		t.Errorf("what is kept is %v", fields)
	}
	if err := s.Release(t.Context(), g, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.client.HSet(t.Context(), s.keys[1], "format", 2).Err(); err != nil {
		t.Fatal(err)
	}
	_, look := s.Holder(t.Context())
	_, acquire := s.Acquire(t.Context(), holder, time.Minute, 0)
	for call, err := range map[string]error{"holder": look, "acquire": acquire} {
		if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "format 2") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// Secrets are never printed.
func TestSecretsStaySecret(t *testing.T) {
	server := storeserver.StartRedis(t, "--requirepass", "right")
	const secret = "hunter2-Zq9"
	cfg := Config{Addresses: []string{server.Addr}, Password: secret, SentinelPassword: secret}
	if _, err := open(cfg); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("a wrong password: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(text, secret) {
		t.Errorf("a printed Config shows the password: %s", text)
	}
}

// Settings that do not go together are told all at once.
func TestFaultySettings(t *testing.T) {
	_, err := Open(t.Context(), Config{Addresses: []string{"a", "b:1"}, Cluster: true, SentinelMaster: "m", Database: 3, Prefix: "x y", WaitReplicas: -1})
	for _, want := range []string{`address "a"`, "cluster and sentinel_master", "database 3", "prefix", "wait_replicas"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
}
