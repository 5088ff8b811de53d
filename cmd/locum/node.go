package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/locum-ha/locum/internal/config"
)

// node is what the server command runs.
type node interface {
	// Run is the node until ctx ends; the end of skip cuts its drain short.
	Run(ctx, skip context.Context) error
	// Reload reads the certificates again.
	Reload() error
}

// newNode makes one; ready is called when it listens, and the start-up table goes to out.
func newNode(_ *config.Config, _ *slog.Logger, _ io.Writer, _ func()) (node, error) {
	return nil, errors.New("this build has no server")
}
