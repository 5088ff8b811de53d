package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// DefaultAddress is the node asked where nothing else is said: the first one of "locum dev".
const DefaultAddress = "http://127.0.0.1:8400"

// Secret is a string that does not print itself.
type Secret string

// Format prints *** under every verb, and nothing for the empty secret.
func (s Secret) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = io.WriteString(f, "***")
	}
}

// MarshalText gives ***.
func (s Secret) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(s)), nil }

// Config says whom to ask and how.
type Config struct {
	Address    string        // URL of a node, or unix:///path of its socket; default DefaultAddress
	Token      Secret        // sent as X-Vault-Token; may be empty
	CACert     string        // PEM file of authorities; default: the system's
	ClientCert string        // PEM file of a certificate to show, where the listener asks for one
	ClientKey  string        // PEM file of its key
	ServerName string        // to expect in the node's certificate; default: the address's host
	SkipVerify bool          // do not verify the node's certificate. Anyone in between gets the token
	NoForward  bool          // ask standbys to redirect instead of forwarding
	Attempts   int           // how often a request is sent at most, where it may be repeated; default 3
	MaxWait    time.Duration // the longest that one Retry-After is followed; default 10s
	Timeout    time.Duration // for one attempt, where the context has no earlier deadline; default 90s
}

// Every name of a setting in the environment, the strongest first.
var (
	envAddress    = []string{"LOCUM_ADDR", "VAULT_ADDR"}
	envToken      = []string{"LOCUM_TOKEN", "VAULT_TOKEN"}
	envCACert     = []string{"LOCUM_CACERT", "VAULT_CACERT"}
	envClientCert = []string{"LOCUM_CLIENT_CERT", "VAULT_CLIENT_CERT"}
	envClientKey  = []string{"LOCUM_CLIENT_KEY", "VAULT_CLIENT_KEY"}
	envServerName = []string{"LOCUM_TLS_SERVER_NAME", "VAULT_TLS_SERVER_NAME"}
	envSkipVerify = []string{"LOCUM_SKIP_VERIFY", "VAULT_SKIP_VERIFY"}
)

// FromEnv reads a configuration from the environment: LOCUM_ADDR, LOCUM_TOKEN, LOCUM_CACERT, LOCUM_CLIENT_CERT,
// LOCUM_CLIENT_KEY, LOCUM_TLS_SERVER_NAME and LOCUM_SKIP_VERIFY, each with VAULT_ in place of LOCUM_ where that is
// not set.
func FromEnv(lookup func(string) (string, bool)) Config {
	first := func(names []string) string {
		for _, name := range names {
			if value, _ := lookup(name); value != "" {
				return value
			}
		}
		return ""
	}
	skip, _ := strconv.ParseBool(first(envSkipVerify)) // what is no bool does not switch verification off
	return Config{
		Address:    first(envAddress),
		Token:      Secret(first(envToken)),
		CACert:     first(envCACert),
		ClientCert: first(envClientCert),
		ClientKey:  first(envClientKey),
		ServerName: first(envServerName),
		SkipVerify: skip,
	}
}

// Client asks one node. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
}

// New checks the configuration and reads the files that it names. It connects to nothing.
func New(cfg Config) (*Client, error) {
	if cfg.Address == "" {
		cfg.Address = DefaultAddress
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 3
	}
	if cfg.MaxWait <= 0 {
		cfg.MaxWait = 10 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 90 * time.Second
	}
	base, err := url.Parse(strings.TrimRight(cfg.Address, "/"))
	socket := ""
	if err == nil && base.Scheme == "unix" {
		if socket = base.Path; base.Host != "" || !strings.HasPrefix(socket, "/") {
			return nil, fmt.Errorf("address %q: write a socket with its absolute path, such as \"unix:///run/locum.sock\"", cfg.Address)
		}
		base = &url.URL{Scheme: "http", Host: socketHost}
	}
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("address %q: write it such as %q, or \"unix:///run/locum.sock\"", cfg.Address, DefaultAddress)
	}
	if base.User != nil {
		return nil, errors.New("the address has a user name or password: tokens are given as such")
	}
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   10 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}
	if socket != "" {
		overSocket(transport, socket)
	}
	return &Client{cfg: cfg, base: base, http: &http.Client{
		Transport: transport,
		// Redirects are followed here and not there: see follow.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Address returns the URL of the node that is asked.
func (c *Client) Address() string {
	if c.base.Host == socketHost {
		return strings.TrimRight(c.cfg.Address, "/")
	}
	return c.base.String()
}

// socketHost stands for a node's Unix socket in URLs. No host can be called so: the name ends in a label that is reserved (RFC 6761).
const socketHost = "unix-socket.invalid"

// overSocket makes the transport reach socketHost through a Unix socket; where that redirects to is reached as always.
func overSocket(t *http.Transport, socket string) {
	var dialer net.Dialer
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(addr); err == nil && host == socketHost {
			return dialer.DialContext(ctx, "unix", socket)
		}
		return dialer.DialContext(ctx, network, addr)
	}
	proxy := t.Proxy
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if r.URL.Host == socketHost {
			return nil, nil
		}
		return proxy(r)
	}
}

// name is a URL's host as the user knows it.
func (c *Client) name(u *url.URL) string {
	if u.Host == socketHost {
		return c.Address()
	}
	return u.Host
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (cfg Config) tls() (*tls.Config, error) {
	out := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         cfg.ServerName,
		InsecureSkipVerify: cfg.SkipVerify, // asked for by name; the CLI warns
	}
	if cfg.CACert != "" {
		pem, err := os.ReadFile(cfg.CACert)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", cfg.CACert)
		}
	}
	if (cfg.ClientCert == "") != (cfg.ClientKey == "") {
		return nil, errors.New("a client certificate and its key go together: give both or none")
	}
	if cfg.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.ClientCert, cfg.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
