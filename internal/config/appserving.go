package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Redirects reports whether a standby answers 307 instead of forwarding.
func (c *Config) Redirects(a *Application) bool {
	if a.Mode != "" {
		return a.Mode == "redirect"
	}
	return c.Forwarding.Mode == "redirect" && !a.Bytes()
}

// AddressOf is the URL at which clients reach the application on this node; "" if it is not known, or there is none.
func (c *Config) AddressOf(a *Application) string {
	if a.Address != "" || len(a.Listen) == 0 || a.Bytes() {
		return a.Address
	}
	host, port, err := splitAddress(a.Listen[0])
	if err != nil || port == 0 {
		return ""
	}
	if host == "" || unspecified(host) {
		u, err := url.Parse(c.APIAddr)
		if err != nil || u.Hostname() == "" {
			return ""
		}
		host = u.Hostname()
	}
	scheme := "http"
	if a.TLSCertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// Bytes reports whether the application takes a stream of bytes and not HTTP.
func (a *Application) Bytes() bool { return strings.HasPrefix(a.Upstream, "tcp:") }

// AuthorizedProxies returns x_forwarded_for_authorized_addrs as ranges.
func (a *Application) AuthorizedProxies() (ranges []netip.Prefix) {
	ranges, _ = sources(a.XForwardedForAuthorizedAddrs)
	return ranges
}

// serving checks the settings of an application's way of requests.
func (c *checker) serving(a *Application, path string) {
	bytes := a.Bytes()
	if a.Mode != "" {
		c.oneOf(path+"mode", a.Mode, "forward", "redirect")
	}
	if bytes {
		for name, given := range map[string]bool{
			"mode": a.Mode == "redirect", "tls_cert_file": a.TLSCertFile != "", "tls_client_ca_file": a.TLSClientCAFile != "", "address": a.Address != "",
			"x_forwarded_for_authorized_addrs": len(a.XForwardedForAuthorizedAddrs) > 0, "max_request_size": a.MaxRequestSize > 0,
		} {
			if given {
				c.fault(path+name, "for HTTP, and upstream takes bytes", "remove the line, or write upstream as http://…")
			}
		}
	} else if a.ProxyProtocol {
		c.fault(path+"proxy_protocol", "for an upstream tcp://", "remove the line: applications behind HTTP read X-Forwarded-For")
	}
	if a.Address != "" {
		if err := checkURL(a.Address, "http", "https"); err != nil {
			c.fault(path+"address", err.Error(), `write it such as "https://a.example.com:8080"`)
		}
	}
	if a.UpstreamCAFile != "" && !strings.HasPrefix(a.Upstream, "https:") {
		c.fault(path+"upstream_ca_file", "upstream speaks no TLS", "remove the line, or write upstream as https://…")
	}
	if (a.TLSCertFile == "") != (a.TLSKeyFile == "") {
		c.fault(path+"tls_cert_file", "certificate and key belong together", "write both tls_cert_file and tls_key_file")
	}
	if a.TLSClientCAFile != "" && a.TLSCertFile == "" && !bytes {
		c.fault(path+"tls_client_ca_file", "clients show certificates with TLS only", "set tls_cert_file and tls_key_file, or remove the line")
	}
	for _, text := range a.XForwardedForAuthorizedAddrs {
		if _, err := parsePrefix(text); err != nil {
			c.fault(path+"x_forwarded_for_authorized_addrs", fmt.Sprintf("%q is neither an address nor a range", text), `write "10.0.0.7" or "10.0.0.0/8"`)
		}
	}
	if a.IdempotencyTTL < time.Minute || a.IdempotencyTTL > 30*24*time.Hour {
		c.fault(path+"idempotency_ttl", fmt.Sprintf("%s is out of range", a.IdempotencyTTL), `write a duration from "1m" to "720h"`)
	}
	if a.IdempotencyMaxSize < 1<<10 || a.IdempotencyMaxSize > maxKept {
		c.fault(path+"idempotency_max_size", fmt.Sprintf("%s is out of range", a.IdempotencyMaxSize), `write a size from "1KiB" to "320KiB"`)
	}
}

// maxKept is the longest answer that every store takes as one entry.
const maxKept = 320 << 10

// servingFiles looks at the files that an application's way of requests needs.
func (c *checker) servingFiles(a *Application, path string) {
	if a.TLSCertFile != "" && a.TLSKeyFile != "" {
		c.keyPair(path+"tls_cert_file", path+"tls_key_file", a.TLSCertFile, a.TLSKeyFile)
	}
	c.authorities(path+"tls_client_ca_file", a.TLSClientCAFile)
	c.authorities(path+"upstream_ca_file", a.UpstreamCAFile)
}
