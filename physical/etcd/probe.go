package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
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
		return nil
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
