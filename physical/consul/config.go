package consul

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Config says where the agent is, how to prove who one is, and where in the key-value store everything lies.
type Config struct {
	// Address is the agent's HTTP API: "host:port", a URL with http:// or https://, or unix:// with the path of a socket.
	// The agent of this host is best. Default: "127.0.0.1:8500".
	Address string
	// Path is the prefix of all keys. The same on all nodes of a cluster, and no other's. Default: "locum/".
	Path string
	// Token is for Consul's access control. It needs key:write on the path and session:write on the agent's node.
	Token physical.Secret
	// TokenFile is a file with the token, which is read again when it is a second old. Instead of Token.
	TokenFile string
	// Datacenter, Namespace and Partition are where the key-value store is. Default: the agent's, and the token's own. Another
	// datacenter than the agent's can keep entries, and not the lock: that is held by a session of the agent's node.
	Datacenter, Namespace, Partition string
	// SessionNode is the node of Consul's catalog whose session holds the lock: a session ends with its node. Default: the
	// agent's own. An agent in client mode leaves when it is stopped, and its node with it.
	SessionNode string
	// TLS is for an address with https://.
	TLS physical.ClientTLS
	// MinTTL is the session_ttl_min of Consul's servers; a shorter TTL is lengthened to it. Default: 10 s, as theirs.
	MinTTL time.Duration
}

func (c *Config) ensureDefaults() {
	if c.Address == "" {
		c.Address = "127.0.0.1:8500"
	}
	if !strings.Contains(c.Address, "://") {
		c.Address = "http://" + c.Address
	}
	if c.Path == "" {
		c.Path = "locum"
	}
	c.Path = strings.Trim(c.Path, "/") + "/"
	if c.MinTTL == 0 {
		c.MinTTL = 10 * time.Second
	}
}

// Validate reports all that is wrong with the configuration, without I/O.
func (c Config) Validate() error {
	c.ensureDefaults()
	var errs []error
	u, err := url.Parse(c.Address)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("address: %w", err))
	case u.Scheme == "unix":
		if u.Path == "" {
			errs = append(errs, fmt.Errorf("address %q: write unix:// and the absolute path of the socket", c.Address))
		}
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		errs = append(errs, fmt.Errorf("address %q: write host:port, or a URL with http://, https:// or unix://", c.Address))
	case u.Scheme == "http" && !c.TLS.IsZero():
		errs = append(errs, fmt.Errorf("TLS settings have no effect on address %q: write https://", c.Address))
	}
	if c.Token != "" && c.TokenFile != "" {
		errs = append(errs, errors.New("a token and a file with one: one of them is too many"))
	}
	if len(c.Path) > 128 {
		errs = append(errs, fmt.Errorf("the path is %d bytes long, at most 128", len(c.Path)))
	}
	if err := physical.CheckKey(strings.TrimSuffix(c.Path, "/")); err != nil || escape(c.Path) != c.Path {
		errs = append(errs, fmt.Errorf("path %q: write printable ASCII letters, separated by \"/\", without \"%%\"", c.Path))
	}
	return errors.Join(errs...)
}
