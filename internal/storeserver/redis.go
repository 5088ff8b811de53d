package storeserver

import (
	"context"
	"fmt"
	"net"
)

// Redis is a server of Redis that syncs each write to its log.
type Redis struct {
	*Process
	Addr string // "host:port"
}

// StartRedis starts a server with its data on disk. args are added to its command line.
func StartRedis(t T, args ...string) *Redis {
	t.Helper()
	path := Program(t, "redis-server", "redis-server")
	dir := Dir(t, "")
	addr := Loopback(FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	args = append([]string{
		"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
	}, args...)
	return &Redis{Addr: addr, Process: Launch(t, Spec{
		Name: "redis", Dir: dir, Path: path, Args: args,
		Ready: func(ctx context.Context) error { return redisServes(ctx, addr) },
	})}
}

// StartSentinel starts a sentinel, which keeps what it learns in its configuration file.
func StartSentinel(t T, config string) *Redis {
	t.Helper()
	path := Program(t, "redis-server", "redis-server")
	addr := Loopback(FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	dir := Dir(t, "")
	return &Redis{Addr: addr, Process: Launch(t, Spec{
		Name: "sentinel", Dir: dir, Path: path, Args: []string{config, "--sentinel", "--bind", "127.0.0.1", "--port", port, "--dir", dir},
		Ready: func(ctx context.Context) error { return redisServes(ctx, addr) },
	})}
}

// redisServes asks for an answer: a server that is loading its data, or one that wants a password, gives another one.
func redisServes(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err == nil && answer[0] != '+' && string(answer[:min(n, 7)]) != "-NOAUTH" {
		err = fmt.Errorf("it answers %q", answer[:n])
	}
	return err
}
