package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// with is the URL of another role.
func (p *place) with(role string) physical.Secret {
	return physical.Secret(strings.Replace(p.server.URL(""), "locum:secret@", role+":secret@", 1))
}

// "Creates its tables itself or says exactly which right is missing (with the SQL to run)": what it says to run works.
func (p *place) testMissingRights(t *testing.T) {
	p.admin(t, "CREATE ROLE poor LOGIN PASSWORD 'secret'; CREATE SCHEMA given; GRANT USAGE ON SCHEMA given TO poor")
	for schema, right := range map[string]string{
		"given": "GRANT USAGE, CREATE ON SCHEMA given", "fresh": "GRANT CREATE ON DATABASE",
	} {
		_, err := open(Config{URL: p.with("poor"), Schema: schema})
		if err == nil || !strings.Contains(err.Error(), right) || !strings.Contains(err.Error(), `"poor"`) {
			t.Fatalf("schema %s: got %v, want it to name the right %q", schema, err, right)
		}
		_, sql, found := strings.Cut(err.Error(), "as an administrator:\n")
		if !found {
			t.Fatalf("the error has no SQL to run: %v", err)
		}
		p.admin(t, sql)
		s, err := open(Config{URL: p.with("poor"), Schema: schema})
		if err != nil {
			t.Fatalf("after the SQL was run: %v", err)
		}
		if err := s.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
			t.Errorf("commit: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	// "poor" owns what it has made, and so may do everything; "guest" has what it is granted.
	p.admin(t, "CREATE ROLE guest LOGIN PASSWORD 'secret'; REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA given FROM PUBLIC")
	for what, revoke := range map[string]string{
		"a right on a table":    "REVOKE UPDATE ON given.locum_fence FROM guest",
		"a right on a function": "REVOKE EXECUTE ON FUNCTION given.locum_commit_v1 FROM guest",
	} {
		for range 2 { // first without any right
			_, err := open(Config{URL: p.with("guest"), Schema: "given"})
			if err == nil || !strings.Contains(err.Error(), "GRANT SELECT, INSERT, UPDATE, DELETE ON given.locum_entries") {
				t.Fatalf("without %s: %v", what, err)
			}
			_, sql, _ := strings.Cut(err.Error(), "as an administrator:\n")
			p.admin(t, sql)
			s, err := open(Config{URL: p.with("guest"), Schema: "given"})
			if err != nil {
				t.Fatalf("%s: after the SQL was run: %v", what, err)
			}
			if err := s.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
				t.Errorf("commit: %v", err)
			}
			_ = s.Close()
			p.admin(t, revoke)
		}
	}
}

// "A node that meets a newer format says so and stays standby."
func (p *place) testNewerFormat(t *testing.T) {
	s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p.admin(t, "UPDATE "+s.schema.fence+" SET format = 2; UPDATE "+s.schema.lock+" SET format = 2")
	_, fence := s.Fence(t.Context())
	_, acquire := s.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Minute, 0)
	for call, err := range map[string]error{"fence": fence, "acquire": acquire} {
		if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "format 2") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// Through TLS, with a password from a file.
func (p *place) testTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(p.server.URL(""), ":secret", "", 1)
	url = strings.Replace(url, "sslmode=disable", "sslmode=verify-full&sslrootcert="+p.cert.CertFile, 1)
	s, err := open(Config{URL: physical.Secret(url), PasswordFile: file, Schema: p.fresh()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var secure bool
	if err := s.pool.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&secure); err != nil || !secure {
		t.Errorf("TLS is %v, %v", secure, err)
	}
	url = strings.Replace(url, "&sslrootcert="+p.cert.CertFile, "", 1)
	if _, err := open(Config{URL: physical.Secret(url), PasswordFile: file}); err == nil {
		t.Error("a server whose certificate nobody vouches for was believed")
	}
}

// Secrets are never printed: not a wrong password, not a URL that cannot be read.
func (p *place) testSecretsStaySecret(t *testing.T) {
	const secret = "hunter2-Zq9"
	for what, url := range map[string]string{
		"a wrong password": strings.Replace(p.server.URL(""), "secret", secret, 1),
		"a bad escape":     "postgres://locum:" + secret + "%zz@127.0.0.1/locum",
		"no host":          "postgres://locum:" + secret + "@[::bad/locum",
		"a bad setting":    "postgres://locum:" + secret + "@127.0.0.1/locum?sslmode=" + secret,
		"keywords":         "host=127.0.0.1 password='" + secret,
		"nobody listens":   "postgres://locum:" + secret + "@127.0.0.1:1/locum",
	} {
		_, err := open(Config{URL: physical.Secret(url)})
		if err == nil {
			t.Errorf("%s: opened", what)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the password: %v", what, err)
		}
	}
	cfg := Config{URL: "postgres://u:" + secret + "@h/d", ListenURL: secret, Password: secret}
	if text := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(text, secret) {
		t.Errorf("a printed Config shows the password: %s", text)
	}
}

// An isolation level at which a commit would not see a raise is noticed, and not trusted.
func (p *place) testIsolationLevel(t *testing.T) {
	p.admin(t, "ALTER ROLE locum SET default_transaction_isolation = 'repeatable read'")
	s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
		t.Errorf("a connection sets its own level: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, err = open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh(), Pooler: PoolerYes})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Commit(t.Context(), nil, physical.Put("a", nil))
	if err == nil || !strings.Contains(err.Error(), "read committed") || errors.Is(err, physical.ErrUnknown) {
		t.Errorf("behind a pooler, which lets nobody set it: got %v, want an error that says what to do", err)
	}
	if err := s.RaiseFence(t.Context(), physical.Fence{}, physical.Fence{Lineage: "l", Term: 1}); err == nil {
		t.Error("the fence was raised at that level")
	}
}

// A server that takes no writes, as one that was demoted, is unavailable, and the store serves again when it does.
func (p *place) testReadOnlyServer(t *testing.T) {
	s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	reload := func(value string) {
		p.admin(t, "ALTER SYSTEM SET default_transaction_read_only = "+value)
		p.admin(t, "SELECT pg_reload_conf()")
	}
	until := func(want string, ok func(error) bool) {
		t.Helper()
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for deadline := time.Now().Add(10 * time.Second); ; <-ticker.C {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			err := s.Commit(ctx, nil, physical.Put("a", nil))
			cancel()
			if ok(err) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("got %v, want %s", err, want)
			}
		}
	}
	reload("on")
	until("ErrUnavailable", func(err error) bool { return errors.Is(err, physical.ErrUnavailable) })
	p.admin(t, "ALTER SYSTEM RESET default_transaction_read_only")
	p.admin(t, "SELECT pg_reload_conf()")
	until("success", func(err error) bool { return err == nil })
}
