package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"time"
)

// Cache is this node's part of the replicated in-memory cache. Without the block there is none.
type Cache struct {
	// Hosts are all nodes of the cache, as URLs with a port of their own for it: ["http://node-a:8402", "http://node-b:8402"].
	// The same list on every node; a node that starts with another one changes the cluster. This node is the entry whose
	// host is node_name, the host name, or HOSTNAME_OVERWRITE. Default: on the embedded store the cluster's members, over the
	// cluster port and with the cluster's identities; on another store this node alone.
	Hosts []string `hcl:"hosts"`

	// AuthTokenEnv is the name of the environment variable with the secret that the nodes share. It is proven and never
	// sent. Default: "CACHE_AUTH_TOKEN".
	AuthTokenEnv string `hcl:"auth_token_env"`

	// TLS protects what the nodes tell each other, with certificates that they make from the secret, or with one's own: the
	// environment's CACHE_TLS_SERVER_CERT and its kin, as docs/cache.md lists them. Default: true.
	TLS bool `hcl:"tls"`

	// RESPAddress is the host:port that clients of Redis connect to; "" for none. Default: "127.0.0.1:8479".
	RESPAddress string `hcl:"resp_address"`

	// RESPPasswordEnv is the name of the environment variable with the password that these clients must give (AUTH). Required
	// where resp_address can be reached from other hosts. Default: "CACHE_RESP_PASSWORD"; without that variable, none.
	RESPPasswordEnv string `hcl:"resp_password_env"`

	// RESPTLSCertFile is the PEM file with the certificate that these clients are shown. Read again on SIGHUP. Default: none, without TLS.
	RESPTLSCertFile string `hcl:"resp_tls_cert_file"`

	// RESPTLSKeyFile is the PEM file with that certificate's private key.
	RESPTLSKeyFile string `hcl:"resp_tls_key_file"`

	// MaxEntries is how many entries each cache holds; then the ones not written for longest go. Default: 1000000.
	MaxEntries int `hcl:"max_entries"`

	// MaxBytes is how much each cache holds: keys, values and some 144 bytes for each entry. Default: "256MiB".
	MaxBytes Size `hcl:"max_bytes"`

	// DefaultTTL is how long an entry lives that is written without a time; "0" for no end. Default: "0".
	DefaultTTL time.Duration `hcl:"default_ttl"`

	// Bounds are those of one cache, by its name, instead of the ones above.
	Bounds []CacheBounds `hcl:"bounds,block"`

	// On says that there is a cache: Complete sets it where the file has the block.
	On bool
}

// CacheBounds are the bounds of one cache. The label is its name.
type CacheBounds struct {
	// Name is the label of the block: the cache's name.
	Name string `hcl:"name,label"`

	// MaxEntries is how many entries it holds. Default: the cache block's.
	MaxEntries int `hcl:"max_entries"`

	// MaxBytes is how much it holds. Default: the cache block's.
	MaxBytes Size `hcl:"max_bytes"`

	// DefaultTTL is how long an entry lives that is written without a time. Default: the cache block's.
	DefaultTTL time.Duration `hcl:"default_ttl"`
}

// DefaultCache returns the block with its defaults.
func DefaultCache() Cache {
	return Cache{
		AuthTokenEnv: "CACHE_AUTH_TOKEN", TLS: true, RESPAddress: "127.0.0.1:8479", RESPPasswordEnv: "CACHE_RESP_PASSWORD",
		MaxEntries: 1_000_000, MaxBytes: 256 << 20,
	}
}

// variableName is what an environment variable may be called.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (c *checker) cache() {
	b := c.Cache
	if !b.On {
		return
	}
	for _, host := range b.Hosts {
		if err := checkURL(host, "http", "https"); err != nil {
			c.fault("cache.hosts", err.Error(), `write it such as "http://node-a:8402"`)
		}
	}
	for _, name := range []struct{ path, value string }{{"auth_token_env", b.AuthTokenEnv}, {"resp_password_env", b.RESPPasswordEnv}} {
		if !variableName.MatchString(name.value) {
			c.fault("cache."+name.path, "not the name of an environment variable", "write the variable's name, not the value")
		}
	}
	if b.RESPAddress != "" {
		c.listenAddress("cache.resp_address", b.RESPAddress)
	}
	if (b.RESPTLSCertFile == "") != (b.RESPTLSKeyFile == "") {
		c.fault("cache", "resp_tls_cert_file and resp_tls_key_file go together", "set both or none")
	}
	if b.MaxEntries < 1 {
		c.fault("cache.max_entries", fmt.Sprintf("%d is too few", b.MaxEntries), "write at least 1")
	}
	if b.MaxBytes < 1<<20 {
		c.fault("cache.max_bytes", fmt.Sprintf("%s is too small", b.MaxBytes), `write at least "1MiB"`)
	}
	seen := map[string]bool{}
	for i, one := range b.Bounds {
		path := fmt.Sprintf("cache.bounds[%d]", i)
		if one.Name == "" || len(one.Name) > 255 || seen[one.Name] {
			c.fault(path, fmt.Sprintf("the name %q is empty, too long, or another block's too", one.Name), "give each cache one block, with a name of 1 to 255 bytes")
		}
		seen[one.Name] = true
		if one.MaxEntries < 0 || one.MaxBytes < 0 {
			c.fault(path, "a bound is negative", "write a positive one, or remove the line")
		}
	}
}

// onlyHere reports whether a host to listen on can be reached from this machine alone.
func onlyHere(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// cacheFiles looks at what the cache needs of this host: files, and secrets in the environment.
func (c *checker) cacheFiles() {
	b := c.Cache
	if !b.On {
		return
	}
	if len(b.Hosts) > 1 && os.Getenv(b.AuthTokenEnv) == "" {
		c.fault("cache.auth_token_env", fmt.Sprintf("the environment has no %s", b.AuthTokenEnv), `set it before the start, on all nodes to the same token, such as the output of "openssl rand -hex 32"`)
	}
	if host, _, err := net.SplitHostPort(b.RESPAddress); err == nil && !onlyHere(host) && os.Getenv(b.RESPPasswordEnv) == "" {
		c.fault("cache.resp_address", fmt.Sprintf("%s can be reached from other hosts, and the environment has no %s", b.RESPAddress, b.RESPPasswordEnv),
			`set a password there, or write "127.0.0.1:8479"`)
	}
	if b.RESPTLSCertFile != "" && b.RESPTLSKeyFile != "" {
		c.keyPair("cache.resp_tls_cert_file", "cache.resp_tls_key_file", b.RESPTLSCertFile, b.RESPTLSKeyFile)
	}
}
