package config

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// CacheNode is the configuration of a node that is a cache and nothing else, by environment alone: what stands beside the HA_* and
// CACHE_* variables that package cache reads itself.
type CacheNode struct {
	// Cache has the bounds and the address for clients of Redis; its hosts are package cache's to read.
	Cache Cache
	// API is where health, metrics and the entries are served over HTTP: a listener with tls_disable unless it has files.
	API Listener
	// APIToken is what opens the entries over HTTP; "" if nothing does. It is a secret.
	APIToken string
	// ShutdownDelay is how long a node that was asked to end goes on after it says 503 on /ready, for load balancers to notice.
	ShutdownDelay time.Duration
	// LogLevel and LogFormat are as in the configuration file.
	LogLevel, LogFormat string
}

// CacheMode reports whether the environment asks for a node that is a cache and nothing else.
func CacheMode(lookup func(string) (string, bool)) bool {
	value, _ := lookup("HA_MODE")
	return value != ""
}

// CacheFromEnvironment reads the variables
//
//	CACHE_API_ADDRESS                           where HTTP is served: host:port. Default: "0.0.0.0:8400"
//	CACHE_API_TOKEN                             what clients must show to get at the entries over HTTP. Default: nobody gets at them
//	CACHE_API_TLS_CERT, CACHE_API_TLS_KEY       PEM files. Default: no TLS
//	CACHE_RESP_ADDRESS                          where clients of Redis connect: host:port, or "off". Default: "127.0.0.1:8479"
//	CACHE_RESP_PASSWORD                         what they must give; required where others can reach the address
//	CACHE_RESP_TLS_CERT, CACHE_RESP_TLS_KEY     PEM files. Default: no TLS
//	CACHE_MAX_ENTRIES, CACHE_MAX_BYTES          bounds of each cache. Defaults: 1000000, 256MiB
//	CACHE_DEFAULT_TTL                           of entries that are written without a time. Default: "0", no end
//	CACHE_SHUTDOWN_DELAY                        how long the node goes on, at its end, after it is "ready" no more. Default: "0"
//	LOCUM_LOG_LEVEL, LOCUM_LOG_FORMAT           debug, info, warn, error; text, json. Defaults: info, text
//
// The error is a [Faults] with everything that is wrong.
func CacheFromEnvironment(lookup func(string) (string, bool)) (*CacheNode, error) {
	if lookup == nil {
		lookup = os.LookupEnv
	}
	source := Source{LookupEnv: lookup}
	n := &CacheNode{Cache: DefaultCache(), API: NewListener("tcp"), LogLevel: "info", LogFormat: "text"}
	n.Cache.On = true
	n.API.Address = "0.0.0.0:8400"
	check := &checker{Config: &Config{where: positions{}}}
	read := func(name string, take func(value string) error) {
		g := source.variable(name)
		if g.value == "" {
			return
		}
		if err := take(g.value); err != nil {
			check.fault(name, err.Error(), "write a valid one, or leave the variable out")
		}
	}
	text := func(into *string) func(string) error {
		return func(value string) error { *into = value; return nil }
	}
	oneOf := func(into *string, allowed ...string) func(string) error {
		return func(value string) error {
			if !slices.Contains(allowed, value) {
				return fmt.Errorf("%q is not %s", value, either(allowed))
			}
			*into = value
			return nil
		}
	}
	read("CACHE_API_ADDRESS", text(&n.API.Address))
	read("CACHE_API_TOKEN", text(&n.APIToken))
	read("CACHE_API_TLS_CERT", text(&n.API.TLSCertFile))
	read("CACHE_API_TLS_KEY", text(&n.API.TLSKeyFile))
	read("CACHE_RESP_ADDRESS", text(&n.Cache.RESPAddress))
	read("CACHE_RESP_TLS_CERT", text(&n.Cache.RESPTLSCertFile))
	read("CACHE_RESP_TLS_KEY", text(&n.Cache.RESPTLSKeyFile))
	read("CACHE_MAX_ENTRIES", func(value string) (err error) { n.Cache.MaxEntries, err = strconv.Atoi(value); return err })
	read("CACHE_MAX_BYTES", func(value string) (err error) { n.Cache.MaxBytes, err = ParseSize(value); return err })
	read("CACHE_DEFAULT_TTL", func(value string) (err error) { n.Cache.DefaultTTL, err = parseDuration(value); return err })
	read("CACHE_SHUTDOWN_DELAY", func(value string) (err error) { n.ShutdownDelay, err = parseDuration(value); return err })
	read("LOCUM_LOG_LEVEL", oneOf(&n.LogLevel, "debug", "info", "warn", "error"))
	read("LOCUM_LOG_FORMAT", oneOf(&n.LogFormat, "text", "json"))
	if n.Cache.RESPAddress == "off" {
		n.Cache.RESPAddress = ""
	}
	n.API.TLSDisable = n.API.TLSCertFile == "" && n.API.TLSKeyFile == ""
	check.Config.Cache = n.Cache
	check.cache()
	check.cacheFiles()
	check.listenAddress("CACHE_API_ADDRESS", n.API.Address)
	if !n.API.TLSDisable {
		check.keyPair("CACHE_API_TLS_CERT", "CACHE_API_TLS_KEY", n.API.TLSCertFile, n.API.TLSKeyFile)
	}
	return n, check.faults.err()
}
