package config

import (
	"reflect"
	"time"
)

// Default returns a configuration with everything that has a default of its own, and nothing that depends on the host.
func Default() *Config {
	return &Config{
		ClusterName: "locum",
		Seal:        Seal{Type: "shamir"},
		HA:          HA{Priority: 100, Candidate: true, DrainTimeout: 15 * time.Second},
		Forwarding: Forwarding{
			Mode:            "forward",
			HoldTimeout:     40 * time.Second,
			HoldMaxRequests: 10000,
			HoldMaxBytes:    64 << 20,
			RetryBuffer:     1 << 20,
		},
		Cache:     DefaultCache(),
		RateLimit: RateLimit{RequestsPerSecond: 50, Burst: 200},
		Telemetry: Telemetry{PrometheusRetentionTime: 30 * time.Second},
		LogLevel:  "info",
		LogFormat: "text",
		where:     positions{},
	}
}

// NewStorage returns a storage of this type with its defaults.
func NewStorage(kind string) Storage {
	return Storage{Type: kind, Raft: RaftStorage{Performance: 1, SnapshotSize: 64 << 20, DeadPeerTimeout: 24 * time.Hour}}
}

// NewListener returns a listener of this type with its defaults; its address is for Complete to find.
func NewListener(kind string) Listener {
	return Listener{
		Type: kind, TLSMinVersion: "tls12",
		HTTPReadHeaderTimeout: 10 * time.Second, HTTPIdleTimeout: 5 * time.Minute, HTTPMinBodyRate: 256, MaxHeaderBytes: 64 << 10,
	}
}

// defaultsOf fills a block that starts anew.
func defaultsOf(v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *Storage:
		*p = NewStorage("")
	case *Listener:
		*p = NewListener("")
	case *Application:
		*p = NewApplication("")
	}
}
