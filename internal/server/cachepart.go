package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/cache/resp"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/metrics"
)

// databases is how many numbers SELECT takes.
const databases = 16

// cachePart is the cache on this node, with its server for clients of Redis.
type cachePart struct {
	node     *cache.Node
	resp     *resp.Server // nil where resp_address is empty
	block    config.Cache
	respPair atomic.Pointer[tls.Certificate] // what clients of Redis are shown, where they come with TLS
	layer    *cacheLayer                     // nil where the cache's hosts are configured, or it is by itself
	log      *slog.Logger
	rows     map[string]string
	warnings []string
}

// cacheEnvironment is what package cache's variables say for a node whose configuration file has a cache block: the block takes their place
// where it says the same. With members the hosts are the cluster's, unless the block has its own.
func cacheEnvironment(b config.Cache, nodeName string, members bool) (*cache.Environment, error) {
	if len(b.Hosts) == 0 {
		env := &cache.Environment{}
		if os.Getenv("HA_HOSTS") != "" && !members {
			env.Warnings = append(env.Warnings, "HA_HOSTS is set and not read: the cache block has no hosts, so the cache is this node alone; "+
				"write the hosts into the block, or take the variable away")
		}
		return env, nil
	}
	instead := map[string]string{
		"HA_MODE": "true", "HA_HOSTS": strings.Join(b.Hosts, "\n"), "CACHE_TLS": fmt.Sprint(b.TLS), "CACHE_AUTH_TOKEN": os.Getenv(b.AuthTokenEnv),
	}
	if hosts, err := cache.ParseHosts(b.Hosts); err == nil && os.Getenv("HOSTNAME_OVERWRITE") == "" {
		if _, err := cache.FindSelf(hosts, nodeName); err == nil {
			instead["HOSTNAME_OVERWRITE"] = nodeName
		}
	}
	env, err := cache.FromEnvironment(func(name string) (string, bool) {
		if value, ok := instead[name]; ok {
			return value, true
		}
		return os.LookupEnv(name)
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("cache block: %w", err)
	}
	return env, nil
}

// newCachePart makes the parts. It opens nothing.
func newCachePart(env *cache.Environment, b config.Cache, layer *cacheLayer, version string, log *slog.Logger, m *metrics.Metrics) (*cachePart, error) {
	c := env.Config
	p := &cachePart{block: b, warnings: env.Warnings, layer: layer, log: log.With("part", "cache")}
	if layer != nil {
		c.Hosts, c.Self, c.Layer = []string{layer.self}, layer.self, layer
	}
	var observer resp.Observer
	c.Observer, observer = m.Cache(func() *cache.Node { return p.node })
	c.Logger = log.With("part", "cache")
	c.Default = cache.Options{MaxEntries: int64(b.MaxEntries), MaxBytes: int64(b.MaxBytes), DefaultTTL: b.DefaultTTL}
	c.Caches = map[string]cache.Options{}
	for _, one := range b.Bounds {
		o := c.Default
		if one.MaxEntries > 0 {
			o.MaxEntries = int64(one.MaxEntries)
		}
		if one.MaxBytes > 0 {
			o.MaxBytes = int64(one.MaxBytes)
		}
		if one.DefaultTTL > 0 {
			o.DefaultTTL = one.DefaultTTL
		}
		c.Caches[one.Name] = o
	}
	var err error
	if p.node, err = cache.New(c); err != nil {
		return nil, err
	}
	p.describe(c, b)
	if b.RESPAddress == "" {
		return p, nil
	}
	rc := resp.Config{
		Address: b.RESPAddress, Password: resp.Secret(os.Getenv(b.RESPPasswordEnv)), Databases: databases,
		Logger: log.With("part", "resp"), Observer: observer,
	}
	if b.RESPTLSCertFile != "" {
		use, err := p.load()
		if err != nil {
			return nil, err
		}
		use()
		rc.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.respPair.Load(), nil }}
	}
	p.resp, err = resp.New(resp.NewShared(p.node, databases, c.Self, version), rc)
	return p, err
}

// load reads the certificate for clients of Redis again, and returns what puts it in force, for connections from then on.
func (p *cachePart) load() (use func(), err error) {
	if p.block.RESPTLSCertFile == "" {
		return func() {}, nil
	}
	pair, err := tls.LoadX509KeyPair(p.block.RESPTLSCertFile, p.block.RESPTLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("cache: resp_tls_cert_file: %w", err)
	}
	return func() { p.respPair.Store(&pair) }, nil
}

// describe says what the cache is, for the start-up table, and warns of what should not be.
func (p *cachePart) describe(c cache.Config, b config.Cache) {
	what := "this node alone"
	if advice := cache.Advice(len(c.Hosts)); advice != "" && (len(c.Hosts) > 1 || p.layer == nil) {
		p.warnings = append(p.warnings, advice)
	}
	if n := len(c.Hosts); n > 1 {
		what = fmt.Sprintf("%s of %d hosts (quorum %d, TLS %s)", c.Self, n, n/2+1, map[bool]string{false: "enabled", true: "disabled"}[c.TLS.Disabled])
	}
	p.rows = map[string]string{"Cache": what, "Cache Clients": "none"}
	if p.layer != nil {
		p.rows["Cache"] = "the cluster's members, over the cluster port"
	}
	if b.RESPAddress != "" {
		p.rows["Cache Clients"] = fmt.Sprintf("RESP on %s", b.RESPAddress)
	}
}

// run takes part in the cache until ctx ends, or one of its parts fails.
func (p *cachePart) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() {
		defer cancel()
		if p.layer != nil {
			hosts := p.layer.await(ctx)
			if hosts == nil {
				return // before it was unsealed
			}
			if errs[0] = p.node.SetHosts(hosts); errs[0] != nil {
				return
			}
			wg.Go(func() { p.followMembers(ctx) })
		}
		errs[0] = p.node.Run(ctx)
	})
	if p.resp != nil {
		wg.Go(func() {
			defer cancel()
			errs[1] = p.resp.Run(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
