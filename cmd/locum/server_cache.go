package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/footprint"
	"github.com/locum-ha/locum/internal/server"
)

// serveCache runs a node that is a cache and nothing else, as the environment says.
func (a *app) serveCache(ctx context.Context, override string) error {
	env, err := cache.FromEnvironment(a.env, nil)
	beside, besideErr := config.CacheFromEnvironment(a.env)
	if err != nil && besideErr != nil {
		besideErr = errors.New(besideErr.Error()) // as text: of both, report would show the configuration's faults alone
	}
	if err := errors.Join(err, besideErr); err != nil {
		return withHint(err, "docs/cache.md lists every variable")
	}
	if override != "" {
		beside.LogLevel = override
	}
	level := &slog.LevelVar{}
	level.Set(levelOf(beside.LogLevel))
	logger := slog.New(handlerFor(beside.LogFormat, a.out, level))
	return a.keep(ctx, logger, level, footprint.CacheHeadroom, false, func(ready func()) (node, error) {
		return server.NewCacheNode(env, beside, server.Options{
			Version: version, BuildDate: buildDate, Out: a.out, Logger: logger, Ready: ready, OwnProcess: true,
		})
	}, node.Reload)
}
