package registration

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/locum-ha/locum/physical"
)

// ConsulConfig says which agent registers the service, and how it is called.
type ConsulConfig struct {
	// Address is the agent's HTTP API: "host:port", a URL with http:// or https://, or unix:// with the path of a socket. It
	// should be the agent of this host. Default: "127.0.0.1:8500".
	Address string
	// Token needs service:write on the service; TokenFile is a file with it, which is read for each request. Namespace and
	// Partition are where it is registered.
	Token                physical.Secret
	TokenFile            string
	Namespace, Partition string
	TLS                  physical.ClientTLS

	// Service is its name. Default: "locum".
	Service string
	// Tags are added to active, standby or sealed.
	Tags []string
	// APIAddr is this node's URL: its host and port are registered. Required.
	APIAddr string
	// NodeName is this node's name, in the service's metadata.
	NodeName string
	// CheckTTL is how long after the last sign of life the service is held to be critical. Default: 5 s.
	CheckTTL time.Duration
}

// removeAfter is how long a service may be critical before Consul removes it: the node was lost, with its host or for good.
const removeAfter = 24 * time.Hour

// Consul registers a service with a health check at an agent of Consul's.
type Consul struct {
	config ConsulConfig
	base   string
	query  string
	http   *http.Client
	host   string
	port   int
	id     string
}

var _ Catalog = (*Consul)(nil)

// NewConsul validates, without I/O but for the files of TLS and of the token.
func NewConsul(config ConsulConfig) (*Consul, error) {
	if config.Address == "" {
		config.Address = "127.0.0.1:8500"
	}
	if !strings.Contains(config.Address, "://") {
		config.Address = "http://" + config.Address
	}
	if config.Service == "" {
		config.Service = "locum"
	}
	if config.CheckTTL == 0 {
		config.CheckTTL = 5 * time.Second
	}
	c := &Consul{config: config}
	if _, err := c.token(); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	agent, err := url.Parse(config.Address)
	if err != nil {
		return nil, fmt.Errorf("consul: address: %w", err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second}
	c.base = agent.Scheme + "://" + agent.Host + strings.TrimSuffix(agent.Path, "/")
	switch agent.Scheme {
	case "unix":
		c.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", agent.Path)
		}
	case "https":
		if transport.TLSClientConfig, err = config.TLS.Load(); err != nil {
			return nil, fmt.Errorf("consul: %w", err)
		}
	case "http":
	default:
		return nil, fmt.Errorf("consul: address %q: write host:port, or a URL with http://, https:// or unix://", config.Address)
	}
	c.http = &http.Client{Transport: transport}
	return c, c.place()
}

// place finds out what is registered.
func (c *Consul) place() error {
	own, err := url.Parse(c.config.APIAddr)
	if err != nil || own.Hostname() == "" {
		return fmt.Errorf("consul: api_addr %q is not a URL with a host", c.config.APIAddr)
	}
	c.host = own.Hostname()
	port := own.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[own.Scheme]
	}
	if c.port, err = strconv.Atoi(port); err != nil {
		return fmt.Errorf("consul: api_addr %q has no port", c.config.APIAddr)
	}
	c.id = c.config.Service + ":" + net.JoinHostPort(c.host, port)
	query := url.Values{}
	for name, value := range map[string]string{"ns": c.config.Namespace, "partition": c.config.Partition} {
		if value != "" {
			query.Set(name, value)
		}
	}
	c.query = query.Encode()
	return nil
}

// check is the health check's id.
func (c *Consul) check() string { return c.id + ":ready" }

// status is the check's, and what it says.
func status(s State) (status, output string) {
	if s.NotReady != "" {
		return "critical", s.NotReady
	}
	return "passing", "ready, " + s.role()
}

// Tell registers the service as it is now, in place of what was registered. A check that was there keeps its status,
// whatever is registered: so that is told too.
func (c *Consul) Tell(ctx context.Context, s State) error {
	if err := c.register(ctx, s); err != nil {
		return err
	}
	return c.Alive(ctx, s)
}

func (c *Consul) register(ctx context.Context, s State) error {
	health, output := status(s)
	return c.put(ctx, "/v1/agent/service/register", "replace-existing-checks=true", map[string]any{
		"ID": c.id, "Name": c.config.Service, "Address": c.host, "Port": c.port,
		"Tags": append([]string{s.role()}, c.config.Tags...),
		"Meta": map[string]string{
			"node_name": c.config.NodeName, "version": s.Version, "api_addr": c.config.APIAddr, "initialized": strconv.FormatBool(s.Initialized),
		},
		"EnableTagOverride": false,
		"Check": map[string]any{
			"CheckID": c.check(), "Name": "ready for requests", "TTL": c.config.CheckTTL.String(), "Status": health,
			"Notes": output, "DeregisterCriticalServiceAfter": removeAfter.String(),
		},
	})
}

// Alive passes the check on.
func (c *Consul) Alive(ctx context.Context, s State) error {
	health, output := status(s)
	return c.put(ctx, "/v1/agent/check/update/"+url.PathEscape(c.check()), "", map[string]any{"Status": health, "Output": output})
}

// Remove deregisters the service and its check.
func (c *Consul) Remove(ctx context.Context) error {
	err := c.put(ctx, "/v1/agent/service/deregister/"+url.PathEscape(c.id), "", nil)
	if errors.Is(err, errUnknown) {
		err = nil
	}
	c.http.CloseIdleConnections()
	return err
}

// errUnknown: the agent knows no such service or check.
var errUnknown = errors.New("the agent does not know it")

// token reads the file anew: a token runs out, and whoever renews it writes another there.
func (c *Consul) token() (physical.Secret, error) {
	if c.config.TokenFile == "" {
		return c.config.Token, nil
	}
	text, err := os.ReadFile(c.config.TokenFile)
	if err != nil {
		return "", fmt.Errorf("the file with the token: %w", err)
	}
	return physical.Secret(strings.TrimSpace(string(text))), nil
}

func (c *Consul) put(ctx context.Context, path, query string, body any) error {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return err
		}
	}
	if c.query != "" {
		query = strings.TrimPrefix(query+"&"+c.query, "&")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.base+path+"?"+query, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	token, err := c.token()
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("X-Consul-Token", token.Reveal())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	switch {
	case resp.StatusCode == http.StatusOK:
		return nil
	case resp.StatusCode == http.StatusNotFound, strings.Contains(string(text), "Unknown check"), strings.Contains(string(text), "Unknown service"):
		return fmt.Errorf("%w: %s", errUnknown, text)
	case resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("Consul refuses the token: %s (it needs service:write on %q)", bytes.TrimSpace(text), c.config.Service)
	}
	return fmt.Errorf("Consul answers %s: %s", resp.Status, bytes.TrimSpace(text))
}
