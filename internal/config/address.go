package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Complete puts flag and environment on top of what the files say, finds out the addresses that nobody gave, and
// checks everything, the files that are named included. The error is a [Faults].
func (c *Config) Complete(source Source) error {
	source = source.withDefaults()
	if c.where == nil {
		c.where = positions{}
	}
	c.environment(source)
	c.ensureDefaults(source)
	c.resolveAPIAddr(source)
	c.resolveClusterAddr(source)
	faults := c.validate()
	faults = append(faults, c.checkFiles()...)
	return faults.err()
}

// environment applies the flag and the variables: of each setting the strongest name that is given.
func (c *Config) environment(source Source) {
	c.strongest(&c.APIAddr, &c.APIAddrFrom, "api_addr", []given{
		{"flag -cluster-advertise-addr", source.AdvertiseAddr},
		source.variable("LOCUM_API_ADDR"),
		source.variable("LOCUM_CLUSTER_ADVERTISE_ADDR"),
	}, source.variable("VAULT_API_ADDR"))
	c.strongest(&c.ClusterAddr, &c.ClusterAddrFrom, "cluster_addr", []given{
		source.variable("LOCUM_CLUSTER_ADDR"),
	}, source.variable("VAULT_CLUSTER_ADDR"))
}

// given is a value from outside the files.
type given struct{ from, value string }

// variable reads one. A variable that is set to nothing is not set.
func (s Source) variable(name string) given {
	value, _ := s.LookupEnv(name)
	return given{"environment " + name, strings.TrimSpace(value)}
}

// strongest takes the first of own that is given, else foreign, else what the files say. Two names of Locum's own that
// differ are probably a mistake.
func (c *Config) strongest(into, from *string, path string, own []given, foreign given) {
	if *into != "" {
		*from = c.where.of(path)
	}
	var taken *given
	for _, g := range append(own, foreign) {
		switch {
		case g.value == "":
		case taken == nil:
			taken = &g
			*into, *from, c.where[path] = g.value, g.from, g.from
		case g.value != taken.value && g.from != foreign.from:
			c.warn("%s: %s (%s) replaces %s (%s): they are names of the same setting", path, taken.from, taken.value, g.from, g.value)
		}
	}
}

func (c *Config) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

// ensureDefaults fills what depends on this host or on other settings.
func (c *Config) ensureDefaults(source Source) {
	if c.NodeName == "" {
		if name, err := source.Hostname(); err == nil {
			c.NodeName = name
		}
	}
	for i := range c.Listeners {
		c.Listeners[i].ensureDefaults()
	}
	c.Cache.On = c.Cache.On || c.where["cache"] != ""
	for i := range c.Applications {
		if err := c.Applications[i].ensureDefaults(); err != nil {
			c.Warnings = append(c.Warnings, fmt.Sprintf("application %q: no free port for it: %v", c.Applications[i].Name, err))
		}
	}
	l := c.primary()
	if l == nil || l.ClusterAddress != "" {
		return
	}
	if host, port, err := splitAddress(l.Address); err == nil {
		next := uint16(0) // a free port beside a free port
		if port != 0 {
			next = port + 1
		}
		if port < 65535 {
			l.ClusterAddress = net.JoinHostPort(host, strconv.Itoa(int(next)))
		}
	}
}

// primary is the first listener on TCP: the one whose address others are told, and the cluster port's. nil if there is none.
func (c *Config) primary() *Listener {
	for i := range c.Listeners {
		if !c.Listeners[i].Unix() {
			return &c.Listeners[i]
		}
	}
	return nil
}

// APIListen returns the host:port of the first listener on TCP, "" if there is none.
func (c *Config) APIListen() string {
	if l := c.primary(); l != nil {
		return l.Address
	}
	return ""
}

// ClusterListen returns the host:port that the cluster port listens on.
func (c *Config) ClusterListen() string {
	if l := c.primary(); l != nil {
		return l.ClusterAddress
	}
	return ""
}

func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number up to 65535", text)
	}
	return host, uint16(n), nil
}

// resolveAPIAddr finds the address of the API that others are told, where nobody gave one.
func (c *Config) resolveAPIAddr(source Source) {
	if c.APIAddr != "" {
		c.APIAddr = strings.TrimRight(c.APIAddr, "/")
		return
	}
	l := c.primary()
	if l == nil {
		return
	}
	_, port, err := splitAddress(l.Address)
	if err != nil {
		return // Validate says so
	}
	host, from, ok := c.ownHost(l.Address, source)
	if !ok {
		return
	}
	scheme := "https"
	if l.TLSDisable {
		scheme = "http"
	}
	c.APIAddr = scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
	c.APIAddrFrom = from
}

// resolveClusterAddr finds the address of the cluster port that others are told, where nobody gave one.
func (c *Config) resolveClusterAddr(source Source) {
	if c.ClusterAddr != "" {
		c.ClusterAddr = strings.TrimRight(c.ClusterAddr, "/")
		return
	}
	_, port, err := splitAddress(c.ClusterListen())
	if err != nil {
		return
	}
	host, from, ok := "", "", false
	// The host of api_addr is this node's own, unless what listens there is something in front of it.
	if u, err := url.Parse(c.APIAddr); err == nil && u.Host != "" {
		_, apiPort, err := splitAddress(c.APIListen())
		if err == nil && u.Port() == strconv.Itoa(int(apiPort)) {
			host, from, ok = u.Hostname(), "the host of api_addr, the port of the listener's cluster address", true
		}
	}
	if !ok {
		host, from, ok = c.ownHost(c.ClusterListen(), source)
	}
	if !ok {
		return
	}
	c.ClusterAddr = "https://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
	c.ClusterAddrFrom = from
}

// ownHost is the host under which others reach what listens on address.
func (c *Config) ownHost(address string, source Source) (host, from string, ok bool) {
	listen, _, err := splitAddress(address)
	if err != nil {
		return "", "", false
	}
	if listen != "" && !unspecified(listen) {
		return listen, "the listener's address", true
	}
	addresses, err := source.Addresses()
	if err != nil {
		return "", "", false
	}
	if source.StoreAddress != nil {
		if host, from, ok := source.StoreAddress(c, addresses); ok {
			return host, from, true
		}
	}
	var six netip.Addr
	for _, a := range addresses {
		a = a.Unmap()
		switch {
		case !a.IsPrivate():
		case a.Is4():
			return a.String(), "this host's first private address", true
		case !six.IsValid():
			six = a
		}
	}
	if six.IsValid() {
		return six.WithZone("").String(), "this host's first private address", true
	}
	return "", "", false
}

func unspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
