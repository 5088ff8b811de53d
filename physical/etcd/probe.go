package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// probeTime is how long each server may take to say what is wrong.
const probeTime = time.Second

// probe connects to the servers one by one and says why that fails: the client library only says that time is over.
func (c Config) probe() error {
	var errs []error
	for _, endpoint := range c.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil {
			continue // Validate says so
		}
		if err := c.probeOne(u); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", endpoint, err))
		}
	}
	return errors.Join(errs...)
}

func (c Config) probeOne(u *url.URL) error {
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "2379")
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer raw.Close()
	if u.Scheme != "https" {
		return greet(raw)
	}
	config, err := c.TLS.Load()
	if err != nil {
		return err
	}
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	config.NextProtos = []string{"h2"}
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	// That a certificate is missing is only said after the handshake.
	_ = secure.SetReadDeadline(time.Now().Add(probeTime / 2))
	if _, err := secure.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// greet asks, without TLS, for the version, and says what kind of server that is which does not answer as etcd does. One that speaks
// its other protocol alone on this port (--listen-client-http-urls) sends the first frame of that.
func greet(raw net.Conn) error {
	_ = raw.SetDeadline(time.Now().Add(2 * probeTime))
	if _, err := io.WriteString(raw, "GET /version HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	said := make([]byte, 512)
	n, err := io.ReadFull(raw, said)
	text := string(said[:n])
	const alert = "\x15\x03" // TLS's record of an alert
	switch {
	case n == 0 && errors.Is(err, io.EOF), n == 0 && errors.Is(err, syscall.ECONNRESET), strings.HasPrefix(text, alert), strings.Contains(text, "HTTPS"):
		return errors.New("the server ends a connection without TLS: if it speaks TLS, write https://")
	case strings.HasPrefix(text, "HTTP/") && !strings.Contains(text, "etcdserver"):
		return errors.New("this is no client port of etcd")
	}
	return nil
}
