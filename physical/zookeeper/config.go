package zookeeper

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// Config says where the servers are, how to prove who one is, and where in them everything lies.
type Config struct {
	// Servers are the addresses of the servers, "host:port", all of one ensemble. Required.
	Servers []string
	// Path is the node below which everything lies. It is made if it is not there. The same on all nodes of a cluster,
	// and no other's. Default: "/locum".
	Path string
	// Username and Password are for ZooKeeper's digest authentication. With them, what is created can be read and
	// written by that user alone; without, by everybody who reaches the servers. Neither or both.
	Username string
	Password physical.Secret
	// UseTLS connects over TLS, to the servers' secureClientPort.
	UseTLS bool
	TLS    physical.ClientTLS
}

func (c *Config) ensureDefaults() {
	if c.Path == "" {
		c.Path = "/locum"
	}
	c.Path = "/" + strings.Trim(c.Path, "/")
}

// Validate reports all that is wrong with the configuration, without I/O.
func (c Config) Validate() error {
	c.ensureDefaults()
	var errs []error
	if len(c.Servers) == 0 {
		errs = append(errs, errors.New("no server is named: write the address of at least one"))
	}
	for _, server := range c.Servers {
		if host, port, err := net.SplitHostPort(server); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("server %q: write host:port, such as 10.0.0.1:2181", server))
		}
	}
	if !c.UseTLS && !c.TLS.IsZero() {
		errs = append(errs, errors.New("TLS settings have no effect unless TLS is switched on"))
	}
	if (c.Username == "") != (c.Password == "") {
		errs = append(errs, errors.New("user name and password go together"))
	}
	if strings.Contains(c.Username, ":") {
		errs = append(errs, errors.New(`the user name has a ":", which ends it`))
	}
	path := strings.TrimPrefix(c.Path, "/")
	switch {
	case physical.CheckKey(path) != nil || escape(path) != path:
		errs = append(errs, fmt.Errorf("path %q: write printable ASCII letters, separated by \"/\", without \"%%\"", c.Path))
	case path == "zookeeper" || strings.HasPrefix(path, "zookeeper/"):
		errs = append(errs, errors.New("the path /zookeeper is ZooKeeper's own"))
	case len(path) > 128:
		errs = append(errs, fmt.Errorf("the path is %d bytes long, at most 128", len(path)))
	}
	return errors.Join(errs...)
}
