package main

import (
	"context"
	"io"
	"log/slog"
	"syscall"

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

// application is a node that runs one.
type application interface {
	// Signal passes a signal on to the applications.
	Signal(syscall.Signal)
	// ExitCode is the first application's, once Run has returned.
	ExitCode() int
}

// newNode makes one; ready is called when it listens, and the start-up table goes to out. With founded it begins a cluster where it
// finds none, and tells the root token.
func newNode(c *config.Config, logger *slog.Logger, out io.Writer, founded func(rootToken string), ready func()) (node, error) {
	return server.New(c, server.Options{
		Version: version, BuildDate: buildDate, Out: out, Logger: logger, Ready: ready, Open: stores.Open, OwnProcess: true, Guardian: supervise.StartGuardian,
		Program: server.Program{Found: founded != nil, Founded: founded},
	})
}
