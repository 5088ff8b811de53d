package main

import (
	"context"
	"io"
	"log/slog"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/internal/stores"
	"github.com/locum-ha/locum/supervise"
)

// node is what the server command runs.
type node interface {
	// Run is the node until ctx ends; the end of skip cuts its drain short.
	Run(ctx, skip context.Context) error
	// Reload reads the certificates again.
	Reload() error
}

// newNode makes one; ready is called when it listens, and the start-up table goes to out.
func newNode(c *config.Config, logger *slog.Logger, out io.Writer, ready func()) (node, error) {
	return server.New(c, server.Options{
		Version: version, BuildDate: buildDate, Out: out, Logger: logger, Ready: ready, Open: stores.Open, OwnProcess: true, Guardian: supervise.StartGuardian,
	})
}
