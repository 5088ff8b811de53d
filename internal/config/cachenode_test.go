package config

import (
	"strings"
	"testing"
	"time"
)

// TestCacheFromEnvironment: a node that is a cache and nothing else is set up by environment alone (issue 6, 1).
func TestCacheFromEnvironment(t *testing.T) {
	t.Setenv("CACHE_RESP_PASSWORD", "") // it is read from the process's own environment
	read := func(pairs ...string) (*CacheNode, error) {
		variables := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			variables[pairs[i]] = pairs[i+1]
		}
		return CacheFromEnvironment(func(name string) (string, bool) { v, ok := variables[name]; return v, ok })
	}
	n, err := read()
	if err != nil || n.API.Address != "0.0.0.0:8400" || !n.API.TLSDisable || n.Cache.RESPAddress != "127.0.0.1:8479" || n.Cache.MaxEntries != 1_000_000 {
		t.Errorf("defaults: %+v %v", n, err)
	}
	n, err = read("CACHE_API_ADDRESS", "127.0.0.1:9", "CACHE_API_TOKEN", "t", "CACHE_RESP_ADDRESS", "off", "CACHE_MAX_ENTRIES", "10", "CACHE_MAX_BYTES", "1GiB",
		"CACHE_DEFAULT_TTL", "5m", "CACHE_SHUTDOWN_DELAY", "5s", "LOCUM_LOG_LEVEL", "debug", "LOCUM_LOG_FORMAT", "json")
	if err != nil || n.Cache.RESPAddress != "" || n.Cache.MaxEntries != 10 || n.Cache.MaxBytes != 1<<30 || n.Cache.DefaultTTL != 5*time.Minute || n.ShutdownDelay != 5*time.Second || n.LogLevel != "debug" || n.LogFormat != "json" {
		t.Errorf("set: %+v %v", n, err)
	}
	for want, pairs := range map[string][]string{
		`CACHE_MAX_ENTRIES`:                     {"CACHE_MAX_ENTRIES", "many"},
		`too few`:                               {"CACHE_MAX_ENTRIES", "0"},
		`CACHE_MAX_BYTES`:                       {"CACHE_MAX_BYTES", "12"},
		`CACHE_DEFAULT_TTL`:                     {"CACHE_DEFAULT_TTL", "soon"},
		`CACHE_SHUTDOWN_DELAY`:                  {"CACHE_SHUTDOWN_DELAY", "-1s"},
		`"loud" is not "debug"`:                 {"LOCUM_LOG_LEVEL", "loud"},
		`can be reached from other hosts`:       {"CACHE_RESP_ADDRESS", "0.0.0.0:8479"},
		`is a URL`:                              {"CACHE_API_ADDRESS", "http://x:1"},
		`resp_tls_cert_file and resp_tls_key`:   {"CACHE_RESP_TLS_CERT", "a.pem"},
		`there is no file none.pem`:             {"CACHE_API_TLS_CERT", "none.pem", "CACHE_API_TLS_KEY", "none.pem"},
		"CACHE_API_ADDRESS: \"8400\" is not ho": {"CACHE_API_ADDRESS", "8400"},
	} {
		if _, err := read(pairs...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", pairs, err, want)
		}
	}
	if CacheMode(func(string) (string, bool) { return "", true }) || !CacheMode(func(string) (string, bool) { return "true", true }) {
		t.Error("CacheMode")
	}
}
