package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Unix reports whether it is a Unix socket.
func (l Listener) Unix() bool { return l.Type == "unix" }

// maxSocketPath is what Linux takes, less what the socket is called while it is made.
const maxSocketPath = 107 - len(".new")

// The oldest versions of TLS that may be chosen.
var tlsVersions = map[string]uint16{"tls12": tls.VersionTLS12, "tls13": tls.VersionTLS13}

// MinTLS returns tls_min_version as crypto/tls has it.
func (l Listener) MinTLS() uint16 { return tlsVersions[l.TLSMinVersion] }

// Mode returns socket_mode as permissions.
func (l Listener) Mode() fs.FileMode {
	mode, _ := parseMode(l.SocketMode) // Validate has reported what is wrong
	return mode
}

// AuthorizedProxies returns x_forwarded_for_authorized_addrs as ranges, and whether "unix" is among them.
func (l Listener) AuthorizedProxies() (ranges []netip.Prefix, unix bool) {
	return sources(l.XForwardedForAuthorizedAddrs)
}

// AuthorizedSenders returns proxy_protocol_authorized_addrs as ranges, and whether "unix" is among them.
func (l Listener) AuthorizedSenders() (ranges []netip.Prefix, unix bool) {
	return sources(l.ProxyProtocolAuthorizedAddrs)
}

func sources(texts []string) (ranges []netip.Prefix, unix bool) {
	for _, text := range texts {
		if p, err := parsePrefix(text); err == nil {
			ranges = append(ranges, p)
		}
		unix = unix || text == "unix"
	}
	return ranges, unix
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

func parseMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		return 0, errors.New("no permissions")
	}
	return fs.FileMode(n), nil
}

// ensureDefaults fills what depends on the type.
func (l *Listener) ensureDefaults() {
	switch {
	case !l.Unix():
		if l.Address == "" {
			l.Address = "127.0.0.1:8400"
		}
	case l.TLSCertFile == "" && l.TLSKeyFile == "":
		l.TLSDisable = true
	}
	if l.Unix() && l.SocketMode == "" {
		l.SocketMode = "0600"
	}
}

func (c *checker) listeners() {
	if len(c.Listeners) == 0 {
		c.fault("listener", "missing", `write listener "tcp" { address = "0.0.0.0:8400" … }`)
	}
	sockets := map[string]int{}
	for i, l := range c.Listeners {
		path := fmt.Sprintf("listener[%d]", i)
		switch l.Type {
		case "unix":
			c.unixListener(path, l)
			if first, twice := sockets[l.Address]; twice {
				c.fault(path+".address", fmt.Sprintf("%s is listener[%d]'s too", l.Address, first), "give one of them another path")
			}
			sockets[l.Address] = i
		case "tcp", "":
			c.tcpListener(path, l, &c.Listeners[i] == c.primary())
		default:
			c.fault(path, fmt.Sprintf("type %q is not known", l.Type), `write listener "tcp" or listener "unix"`)
		}
		if i > 0 && l.MaxRequestSize != 0 {
			c.fault(path+".max_request_size", "one limit holds for all listeners", "write it in the first listener block")
		}
		c.listenerTLS(path, l)
		c.listenerLimits(path, l)
		c.listenerSources(path, l)
	}
	switch {
	case len(c.Listeners) == 0:
	case c.primary() == nil && c.HAEnabled():
		c.fault("listener", "there is none on TCP, and the other nodes of the cluster must reach this one", `write listener "tcp" { address = "0.0.0.0:8400" … }`)
	case c.primary() != nil && c.ClusterListen() == "":
		c.fault("listener[0].cluster_address", "cannot be found out from the address", `write "0.0.0.0:8401"`)
	}
}

func (c *checker) tcpListener(path string, l Listener, primary bool) {
	c.listenAddress(path+".address", l.Address)
	if l.ClusterAddress != "" {
		c.listenAddress(path+".cluster_address", l.ClusterAddress)
		if !primary {
			c.fault(path+".cluster_address", "a node has one cluster port", "write it in the first listener block")
		}
	}
	for _, s := range [][2]string{{"socket_mode", l.SocketMode}, {"socket_user", l.SocketUser}, {"socket_group", l.SocketGroup}} {
		if s[1] != "" {
			c.fault(path+"."+s[0], "a TCP port has none", `remove the line, or write listener "unix"`)
		}
	}
}

func (c *checker) listenAddress(path, address string) {
	if _, _, err := splitAddress(address); err == nil {
		return
	}
	if strings.Contains(address, "://") {
		c.fault(path, fmt.Sprintf("%q is a URL", address), `write host:port, such as "0.0.0.0:8400"`)
		return
	}
	if strings.HasPrefix(address, "/") {
		c.fault(path, fmt.Sprintf("%q is a path", address), `write listener "unix" for a socket, or host:port, such as "0.0.0.0:8400"`)
		return
	}
	c.fault(path, fmt.Sprintf("%q is not host:port", address), `write it such as "0.0.0.0:8400"`)
}

func (c *checker) unixListener(path string, l Listener) {
	const fix = `write an absolute path, such as "/run/locum.sock"`
	switch {
	case l.Address == "":
		c.fault(path+".address", "missing", fix)
	case !filepath.IsAbs(l.Address):
		c.fault(path+".address", fmt.Sprintf("%q is not an absolute path", l.Address), fix)
	case len(l.Address) > maxSocketPath:
		c.fault(path+".address", fmt.Sprintf("the path has %d bytes, and a socket's may have %d", len(l.Address), maxSocketPath), "write a shorter one")
	}
	if l.ClusterAddress != "" {
		c.fault(path+".cluster_address", "the cluster port is a TCP port", `write it in the first listener "tcp" block`)
	}
	if _, err := parseMode(l.SocketMode); err != nil {
		c.fault(path+".socket_mode", fmt.Sprintf("%q are no permissions", l.SocketMode), `write octal digits, such as "0660"`)
	}
}

func (c *checker) listenerTLS(path string, l Listener) {
	switch {
	case l.TLSDisable && (l.TLSCertFile != "" || l.TLSKeyFile != ""):
		c.fault(path+".tls_disable", "true beside certificate files", "remove tls_disable, or the files")
	case l.TLSDisable && l.TLSClientCAFile != "":
		c.fault(path+".tls_client_ca_file", "clients show certificates with TLS only", "set tls_cert_file and tls_key_file, or remove the line")
	case l.TLSDisable:
	case l.TLSCertFile == "" || l.TLSKeyFile == "":
		c.fault(path, "no certificate for TLS", "set tls_cert_file and tls_key_file, or tls_disable = true")
	}
	switch _, known := tlsVersions[l.TLSMinVersion]; {
	case known:
	case l.TLSMinVersion == "tls10" || l.TLSMinVersion == "tls11":
		c.fault(path+".tls_min_version", fmt.Sprintf("%q is not secure any more", l.TLSMinVersion), `write "tls12" or "tls13"`)
	default:
		c.fault(path+".tls_min_version", fmt.Sprintf("%q is not known", l.TLSMinVersion), `write "tls12" or "tls13"`)
	}
}

func (c *checker) listenerLimits(path string, l Listener) {
	atLeast := func(name string, d, least time.Duration, example string) {
		if d < least {
			c.fault(path+"."+name, fmt.Sprintf("%s is too short: no client would get through", d), fmt.Sprintf("write at least %q, such as %q", least, example))
		}
	}
	const second = time.Second
	atLeast("http_read_header_timeout", l.HTTPReadHeaderTimeout, second, "10s")
	atLeast("http_idle_timeout", l.HTTPIdleTimeout, second, "5m")
	if l.HTTPReadTimeout != 0 {
		atLeast("http_read_timeout", l.HTTPReadTimeout, second, "5m")
	}
	if l.MaxHeaderBytes < 4<<10 || l.MaxHeaderBytes > 1<<20 {
		c.fault(path+".max_header_bytes", fmt.Sprintf("%s is out of range", l.MaxHeaderBytes), `write a size from "4KiB" to "1MiB"`)
	}
}

// listenerSources checks who may say for whom it speaks.
func (c *checker) listenerSources(path string, l Listener) {
	check := func(name string, texts []string) {
		for _, text := range texts {
			_, err := parsePrefix(text)
			switch {
			case text == "unix" && !l.Unix():
				c.fault(path+"."+name, `"unix" is for listener "unix"`, `write "10.0.0.7" or "10.0.0.0/8"`)
			case err != nil && text != "unix":
				c.fault(path+"."+name, fmt.Sprintf("%q is neither an address nor a range", text), `write "10.0.0.7" or "10.0.0.0/8"`)
			}
		}
	}
	check("x_forwarded_for_authorized_addrs", l.XForwardedForAuthorizedAddrs)
	check("proxy_protocol_authorized_addrs", l.ProxyProtocolAuthorizedAddrs)
	senders := len(l.ProxyProtocolAuthorizedAddrs) > 0
	switch {
	case l.ProxyProtocol && !senders:
		c.fault(path+".proxy_protocol", "nobody is authorised to send it", `write proxy_protocol_authorized_addrs = ["10.0.0.7"]: the proxies in front of this node`)
	case !l.ProxyProtocol && senders:
		c.fault(path+".proxy_protocol_authorized_addrs", "the PROXY protocol is off", "write proxy_protocol = true, or remove the line")
	}
}

// socketFiles looks at what a Unix socket needs on this host.
func (c *checker) socketFiles(path string, l Listener) {
	if dir := filepath.Dir(l.Address); filepath.IsAbs(l.Address) && !isDir(dir) {
		c.fault(path+"address", fmt.Sprintf("there is no folder %s", dir), "make it, or write another path")
	}
	if !number(l.SocketUser) {
		if _, err := user.Lookup(l.SocketUser); err != nil {
			c.fault(path+"socket_user", fmt.Sprintf("there is no user %q on this host", l.SocketUser), "write an existing one, or its number")
		}
	}
	if !number(l.SocketGroup) {
		if _, err := user.LookupGroup(l.SocketGroup); err != nil {
			c.fault(path+"socket_group", fmt.Sprintf("there is no group %q on this host", l.SocketGroup), "write an existing one, or its number")
		}
	}
}

// number reports whether there is nothing to look up.
func number(id string) bool {
	_, err := strconv.ParseUint(id, 10, 31)
	return id == "" || err == nil
}
