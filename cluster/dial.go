package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// dialTimeout bounds connecting and shaking hands with a node that does not answer.
const dialTimeout = 5 * time.Second

// Dial connects to addr (host:port) and makes the handshake with cfg, which comes from a ClientTLS of this
// package. It takes five seconds at most. When it returns, the server has proved who it is; whether the
// server lets this node in shows at the first read (TLS 1.3 works so).
func Dial(ctx context.Context, addr string, cfg *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("no answer from %s within %s", addr, dialTimeout))
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster port %s: %w", addr, err)
	}
	conn := tls.Client(quickio.Poll(raw), cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("handshake with the cluster port %s: %w", addr, err)
	}
	return conn, nil
}
