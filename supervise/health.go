package supervise

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Health says how to see that an application works: the first of Path, TCP and Command that is given; else Upstream accepts a
// connection; without one it is healthy while it runs.
type Health struct {
	Upstream string // http://, h2c://, https://, unix:// or tcp://
	Path     string
	TCP      string // host:port
	Command  []string
	Interval time.Duration // default 1 s
	Timeout  time.Duration // of one check; default 1 s
	Failures int           // in a row; default 3
}

// check is one look at an application.
type check func(ctx context.Context) error

// healthCheck makes the check; nil where there is nothing to look at.
func healthCheck(h Health, run func(ctx context.Context, args []string) error) (check, error) {
	network, address, err := dialTarget(h.Upstream)
	if err != nil {
		return nil, err
	}
	switch {
	case h.Path != "":
		if address == "" {
			return nil, errors.New("health: a path needs an upstream")
		}
		return httpCheck(h, network, address), nil
	case h.TCP != "":
		return dialCheck("tcp", h.TCP), nil
	case len(h.Command) > 0:
		return func(ctx context.Context) error { return run(ctx, h.Command) }, nil
	case address != "":
		return dialCheck(network, address), nil
	}
	return nil, nil
}

// dialTarget is where an upstream is connected to.
func dialTarget(upstream string) (network, address string, err error) {
	if upstream == "" {
		return "", "", nil
	}
	if path, ok := strings.CutPrefix(upstream, "unix://"); ok {
		return "unix", path, nil
	}
	u, err := url.Parse(upstream)
	if err != nil || u.Hostname() == "" {
		return "", "", fmt.Errorf("upstream %q is not an address", upstream)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if port == "" {
		return "", "", fmt.Errorf("upstream %q has no port", upstream)
	}
	return "tcp", net.JoinHostPort(u.Hostname(), port), nil
}

func dialCheck(network, address string) check {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// httpCheck asks for the path over a connection of its own: that the application accepts one is a part of the question.
func httpCheck(h Health, network, address string) check {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
		// Whether it works is asked, not who it is: what clients see of its certificate is the proxy's matter.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	scheme, host := "http", address
	switch {
	case strings.HasPrefix(h.Upstream, "https:"):
		scheme = "https"
	case strings.HasPrefix(h.Upstream, "h2c:"):
		transport.Protocols = &http.Protocols{}
		transport.Protocols.SetUnencryptedHTTP2(true)
	case network == "unix":
		host = "localhost"
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	target := scheme + "://" + host + h.Path
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err
		}
		r.Header.Set("User-Agent", "locum-health")
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // the code is what counts
		if answer.StatusCode < 200 || answer.StatusCode > 399 {
			return fmt.Errorf("%s answers %s", h.Path, answer.Status)
		}
		return nil
	}
}
