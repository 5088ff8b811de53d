package etcd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// Config says where the servers are, how to prove who one is, and where in them everything lies.
type Config struct {
	// Endpoints are the URLs of the servers, http:// or https://, all of one cluster. Required.
	Endpoints []string
	// Path is the prefix of all keys. The same on all nodes of a cluster, and no other's. Default: "locum/".
	Path string
	// Username and Password are for etcd's own authentication, where it is on. Neither or both.
	Username string
	Password physical.Secret
	// Token is a JWT instead of a password.
	Token physical.Secret
	// TLS is for endpoints with https://.
	TLS physical.ClientTLS
	// Logger takes what the client library has to say. Default: nothing is logged.
	Logger *slog.Logger
}

func (c *Config) ensureDefaults() {
	if c.Path == "" {
		c.Path = "locum"
	}
	c.Path = strings.Trim(c.Path, "/") + "/"
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate reports all that is wrong with the configuration, without I/O.
func (c Config) Validate() error {
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoint is named: write the URL of at least one server"))
	}
	secure := 0
	for _, endpoint := range c.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("endpoint %q: write a URL such as https://10.0.0.1:2379", endpoint))
			continue
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	if secure != 0 && secure != len(c.Endpoints) {
		errs = append(errs, errors.New("some endpoints are http:// and some https://: write one of the two for all"))
	}
	if secure == 0 && !c.TLS.IsZero() && len(c.Endpoints) > 0 {
		errs = append(errs, errors.New("TLS settings have no effect on http:// endpoints: write https://"))
	}
	if (c.Username == "") != (c.Password == "") {
		errs = append(errs, errors.New("user name and password go together"))
	}
	if c.Token != "" && c.Username != "" {
		errs = append(errs, errors.New("a token and a user name exclude each other"))
	}
	if len(c.Path) > 256 {
		errs = append(errs, fmt.Errorf("the path is %d bytes long, at most 256", len(c.Path)))
	}
	return errors.Join(errs...)
}

// secure reports whether the endpoints are reached over TLS.
func (c Config) secure() bool {
	return len(c.Endpoints) > 0 && strings.HasPrefix(c.Endpoints[0], "https://")
}
