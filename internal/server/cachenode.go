package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/listener"
	"github.com/locum-ha/locum/internal/metrics"
	"github.com/locum-ha/locum/internal/processors"
)

// CacheNode is a node that is a cache and nothing else, set up by environment alone. It has no storage, no seal and no lock.
type CacheNode struct {
	opts     Options
	log      *slog.Logger
	metrics  *metrics.Metrics
	part     *cachePart
	listener *listener.Listener
	cfg      *config.CacheNode
	stopping atomic.Bool
}

// NewCacheNode makes one of what the environment says: env of the cache itself, cfg of what stands beside it.
func NewCacheNode(env *cache.Environment, cfg *config.CacheNode, opts Options) (*CacheNode, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Out == nil {
		opts.Out = io.Discard
	}
	n := &CacheNode{opts: opts, log: opts.Logger, cfg: cfg, metrics: metrics.New(opts.Version)}
	if opts.OwnProcess {
		if err := n.metrics.CaptureRaft(); err != nil {
			return nil, err
		}
	}
	var err error
	if n.part, err = newCachePart(env, cfg.Cache, nil, opts.Version, n.log, n.metrics); err != nil {
		return nil, err
	}
	lc := listenerConfig(cfg.API)
	lc.Logger = n.log.With("part", "listener")
	lc.Handler = api.CacheAlone(n.part.node, cfg.APIToken, n.stopping.Load, api.Config{
		Logger: n.log.With("part", "api"), Metrics: n.metrics.Handler(), Observer: n.metrics.API(),
	})
	n.listener, err = listener.New(lc)
	return n, err
}

// Run is the node, until ctx ends or something breaks. The end of skip cuts the waiting for open requests short.
func (n *CacheNode) Run(ctx, skip context.Context) error {
	if err := n.listener.Open(); err != nil {
		return err
	}
	n.table()
	life, end := context.WithCancel(context.Background())
	defer end()
	failed := make(chan error, 2)
	var wg sync.WaitGroup
	if n.opts.OwnProcess {
		wg.Go(func() { processors.Keep(life) })
	}
	wg.Go(func() {
		if err := n.part.run(life); err != nil {
			failed <- fmt.Errorf("cache: %w", err)
		}
	})
	wg.Go(func() {
		if err := n.listener.Serve(); err != nil {
			failed <- fmt.Errorf("listener %s: %w", n.listener.Addr(), err)
		}
	})
	if n.opts.Ready != nil {
		n.opts.Ready()
	}
	var err error
	select {
	case err = <-failed:
		n.log.Error("ending: a part of the node failed", "error", err)
	case <-ctx.Done():
		n.log.Info("ending", "cause", context.Cause(ctx))
	}
	n.stopping.Store(true)
	if err == nil && n.cfg.ShutdownDelay > 0 {
		pauseFor(skip, n.cfg.ShutdownDelay)
	}
	closing, cancel := context.WithTimeout(skip, settleListeners)
	defer cancel()
	end() // first: the cache hands its leadership on while requests that wait are told
	err = errors.Join(err, n.listener.Shutdown(closing))
	wg.Wait()
	return err
}

// Reload reads the certificates for HTTP and for clients of Redis again. If one cannot be used, both stay as they are.
func (n *CacheNode) Reload() error {
	useHTTP, err := n.listener.Load()
	useRESP, respErr := n.part.load()
	if err := errors.Join(err, respErr); err != nil {
		return err
	}
	useHTTP()
	useRESP()
	return nil
}

// table prints what the node is, one line each, before the log begins.
func (n *CacheNode) table() {
	access := "closed (CACHE_API_TOKEN is not set)"
	if n.cfg.APIToken != "" {
		access = "with a token"
	}
	rows := map[string]string{
		"Version": n.opts.Version, "Log Level": n.cfg.LogLevel, "Storage": "none: a cache and nothing else",
		"Listener 1": listenerRow(n.cfg.API, n.listener.Addr()), "Cache Over HTTP": access,
	}
	maps.Copy(rows, n.part.rows)
	var b strings.Builder
	b.WriteString("==> Locum server configuration:\n\n")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&b, "%24s: %s\n", name, rows[name])
	}
	b.WriteByte('\n')
	warnings := n.part.warnings
	if n.cfg.APIToken != "" && n.cfg.API.TLSDisable {
		warnings = append(slices.Clip(warnings), "CACHE_API_TOKEN goes over HTTP without TLS: set CACHE_API_TLS_CERT and CACHE_API_TLS_KEY, or let only this host reach CACHE_API_ADDRESS")
	}
	for _, warning := range warnings {
		fmt.Fprintf(&b, "warning: %s\n", warning)
		n.log.Warn(warning)
	}
	b.WriteString("==> Locum server started! Log data will stream in below:\n\n")
	_, _ = io.WriteString(n.opts.Out, b.String()) // nobody looks, then
}
