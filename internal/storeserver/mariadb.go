package storeserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// MariaDB is a server with a database "locum" and the users "locum", who may do everything in it and see all sessions, and
// "admin"; both have the password "secret".
type MariaDB struct {
	*Process
	Addr string // "host:port"
}

// StartMariaDB makes a data directory and starts its server, which syncs each commit to disk. args are added to its
// command line.
func StartMariaDB(t T, args ...string) *MariaDB {
	t.Helper()
	install, server := Program(t, "mariadb-server", "mariadb-install-db"), mariadbProgram(t)
	owner := "mysql"
	if _, err := credential(owner); err != nil {
		owner = "nobody"
	}
	dir := Dir(t, owner)
	addr := Loopback(FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	attr, err := procAttr(owner)
	if err != nil {
		t.Fatalf("mariadb: %v", err)
	}
	cmd := exec.Command(install, "--no-defaults", "--datadir="+filepath.Join(dir, "data"), "--auth-root-authentication-method=normal", "--skip-test-db")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: attr.Credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	users := filepath.Join(dir, "users.sql")
	const sql = "CREATE DATABASE IF NOT EXISTS locum;\nCREATE USER IF NOT EXISTS 'locum'@'%' IDENTIFIED BY 'secret';\n" +
		"GRANT ALL ON locum.* TO 'locum'@'%';\nGRANT PROCESS ON *.* TO 'locum'@'%';\n" +
		"CREATE USER IF NOT EXISTS 'admin'@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION;\n"
	if err := os.WriteFile(users, []byte(sql), 0o644); err != nil {
		t.Fatalf("mariadb: %v", err)
	}
	args = append([]string{
		"--no-defaults", "--datadir=" + filepath.Join(dir, "data"), "--socket=" + filepath.Join(dir, "sock"),
		"--bind-address=127.0.0.1", "--port=" + port, "--init-file=" + users, "--skip-name-resolve", "--skip-log-bin",
		"--innodb-buffer-pool-size=64M", "--max-connections=400", "--pid-file=" + filepath.Join(dir, "pid"),
	}, args...)
	return &MariaDB{Addr: addr, Process: Launch(t, Spec{
		Name: "mariadb", Dir: dir, Path: server, Args: args, User: owner,
		Ready: func(ctx context.Context) error { return mariadbServes(ctx, addr) },
	})}
}

func mariadbProgram(t T) string {
	t.Helper()
	const debian = "/usr/sbin/mariadbd" // not in every user's path
	if _, err := os.Stat(debian); err == nil {
		return debian
	}
	return Program(t, "mariadb-server", "mariadbd")
}

// mariadbServes reads what the server says first.
func mariadbServes(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	hello := make([]byte, 256)
	n, err := conn.Read(hello)
	if err == nil && !strings.Contains(string(hello[:n]), "mysql_native_password") && !strings.Contains(string(hello[:n]), "MariaDB") {
		err = fmt.Errorf("it says %q", hello[:n])
	}
	return err
}
