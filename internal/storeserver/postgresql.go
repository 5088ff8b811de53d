package storeserver

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// PostgreSQL is a server with a database "locum" and two roles: "postgres", who may do everything, and "locum" with
// the password "secret", who owns that database.
type PostgreSQL struct {
	*Process
	Addr string // "host:port"
}

// URL is a connection URL of the role locum; address stands in for the server's own unless it is "", a proxy's say.
func (p *PostgreSQL) URL(address string) string { return p.url("locum:secret", address) }

// AdminURL is a connection URL of the administrator.
func (p *PostgreSQL) AdminURL() string { return p.url("postgres", "") }

func (p *PostgreSQL) url(user, address string) string {
	if address == "" {
		address = p.Addr
	}
	return fmt.Sprintf("postgres://%s@%s/locum?sslmode=disable", user, address)
}

// StartPostgreSQL makes a database cluster and starts its server, which syncs to disk as a real one does. settings are lines of
// its configuration file.
func StartPostgreSQL(t T, settings ...string) *PostgreSQL {
	t.Helper()
	initdb, postgres := postgresProgram(t, "initdb"), postgresProgram(t, "postgres")
	owner := "postgres"
	if _, err := credential(owner); err != nil {
		owner = "nobody"
	}
	dir := Dir(t, owner)
	data := filepath.Join(dir, "data")
	port := FreePort(t)
	addr := Loopback(port)
	attr, err := procAttr(owner)
	if err != nil {
		t.Fatalf("postgresql: %v", err)
	}
	run := func(program, input string, args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: attr.Credential}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	run(initdb, "", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "-N")
	lines := slices.Concat([]string{
		"listen_addresses = '127.0.0.1'", fmt.Sprintf("port = %d", port), "unix_socket_directories = ''",
		"log_min_messages = warning", "fsync = on", "max_connections = 200",
	}, settings)
	text := strings.Join(lines, "\n") + "\n"
	hba := "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	run("/bin/sh", text, "-c", "cat >> data/postgresql.conf")
	run("/bin/sh", hba, "-c", "cat > data/pg_hba.conf")
	run(postgres, "CREATE ROLE locum LOGIN PASSWORD 'secret';\nCREATE DATABASE locum OWNER locum;\n", "--single", "-D", data, "postgres")
	return &PostgreSQL{Addr: addr, Process: Launch(t, Spec{
		Name: "postgresql", Dir: dir, Path: postgres, Args: []string{"-D", data}, User: owner, StopSignal: syscall.SIGINT,
		Ready: func(ctx context.Context) error { return postgresServes(ctx, addr) },
	})}
}

// Crash ends it as a crash does, without writing anything more, and starts it again. Kill would end one of its processes
// only: each is in a group of its own.
func (p *PostgreSQL) Crash() error {
	p.Signal(syscall.SIGQUIT)
	return p.Restart()
}

// postgresProgram finds a program where Debian keeps them, one folder for each version, or in the path.
func postgresProgram(t T, name string) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	return Program(t, "postgresql", name)
}

// postgresServes begins a session: a server that is starting or stopping refuses it.
func postgresServes(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	const startup = "\x00\x00\x00\x26\x00\x03\x00\x00user\x00postgres\x00database\x00locum\x00\x00"
	if _, err := conn.Write([]byte(startup)); err != nil {
		return err
	}
	answer := make([]byte, 1)
	if _, err := conn.Read(answer); err != nil {
		return err
	}
	if answer[0] != 'R' {
		return fmt.Errorf("it refuses sessions: %q", answer)
	}
	return nil
}
