package nats

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

var holder = physical.Record{Holder: "a", Name: "node a"}

// A bucket that would forget the term is refused; a key that somebody deleted is a free lock, and the term goes on above the fence's.
func TestBuckets(t *testing.T) {
	server := storeserver.StartNATS(t)
	conn, err := client.Connect(server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "short", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if _, err := open(Config{URLs: []string{server.URL("")}, Bucket: "short"}); err == nil || !strings.Contains(err.Error(), "TTL") {
		t.Errorf("a bucket with a TTL: %v", err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "made"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(Config{URLs: []string{server.URL("")}, Bucket: "made"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew(t.Context(), g); !errors.Is(err, physical.ErrLost) {
		t.Errorf("renew after the key was deleted: %v", err)
	}
	if next, err := s.Acquire(t.Context(), holder, time.Minute, g.Term()); err != nil || next.Term() <= g.Term() {
		t.Errorf("acquire after the key was deleted: %+v, %v", next, err)
	}
}

// Servers that take two writes of one revision where a bucket has replicas are refused there: Debian's is one of them.
func TestReplicasNeedNewerServers(t *testing.T) {
	for version, fine := range map[string]bool{
		"2.9.10": false, "2.10.29": false, "2.11.0": true, "2.12.0-RC.1": true, "2.15.2": true, "3.0.0": true, "1.4.1": false, "": false, "x": false,
	} {
		if err := replicable(version); (err == nil) != fine {
			t.Errorf("%q: %v", version, err)
		}
	}
	server := storeserver.StartNATS(t)
	_, err := open(Config{URLs: []string{server.URL("")}, Replicas: 3})
	if err == nil { // a newer one would say that it is alone
		t.Error("one server keeps three replicas")
	}
}

// Through TLS, with a password; a wrong one is told without being shown.
func TestTLSAndLogin(t *testing.T) {
	cert := storeserver.NewCertificate(t, "")
	server := storeserver.StartNATS(t,
		"tls { cert_file: "+strconv.Quote(cert.CertFile)+", key_file: "+strconv.Quote(cert.KeyFile)+" }",
		"authorization { user: locum, password: right }")
	cfg := Config{
		URLs: []string{server.URL("")}, Username: "locum", Password: "right",
		ClientTLS: physical.ClientTLS{CAFile: cert.CertFile},
	}
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), g, ""); err != nil {
		t.Fatal(err)
	}
	const secret = "hunter2-Zq9"
	cfg.Password, cfg.Bucket = secret, "other"
	if _, err := open(cfg); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a wrong password: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(text, secret) {
		t.Errorf("a printed Config shows the password: %s", text)
	}
	cfg.Password, cfg.ClientTLS, cfg.TLS = "right", physical.ClientTLS{}, true
	if _, err := open(cfg); err == nil {
		t.Error("a server whose certificate nobody vouches for was believed")
	}
}

// Settings that do not go together are told all at once, and no URL is shown.
func TestFaultySettings(t *testing.T) {
	_, err := Open(t.Context(), Config{URLs: []string{"http://u:hunter2-Zq9@h"}, Bucket: "a.b", Replicas: 2, Token: "t", Username: "u"})
	for _, want := range []string{"address 1", "bucket", "replicas", "more than one way"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows a password: %v", err)
	}
}
