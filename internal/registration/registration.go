package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// State is what the catalog is told of this node.
type State struct {
	Initialized bool
	Sealed      bool
	Active      bool
	NotReady    string // why it should get no requests now; "" when it should
	Version     string
}

// role is one of the three words that the docs name.
func (s State) role() string {
	switch {
	case s.Sealed:
		return "sealed"
	case s.Active:
		return "active"
	}
	return "standby"
}

// Catalog is where services are registered. Each method makes one attempt.
type Catalog interface {
	// Tell makes the catalog show the state, whatever it shows.
	Tell(ctx context.Context, s State) error
	// Alive tells that the state is as it was; the catalog may have forgotten it, which is an error.
	Alive(ctx context.Context, s State) error
	// Remove takes the node out of the catalog.
	Remove(ctx context.Context) error
}

// Config is what a Registration needs.
type Config struct {
	Catalog Catalog
	State   func() State  // reads memory only. Required
	Every   time.Duration // how often the state is looked at. Default: 200 ms
	Alive   time.Duration // how often an unchanged state is told. Default: 1 s
	Timeout time.Duration // of one attempt. Default: 2 s
	Logger  *slog.Logger  // default: discard
}

// Registration keeps a catalog true.
type Registration struct{ config Config }

// New validates, without I/O.
func New(config Config) (*Registration, error) {
	if config.Catalog == nil || config.State == nil {
		return nil, errors.New("registration: Catalog and State are required")
	}
	for d, otherwise := range map[*time.Duration]time.Duration{
		&config.Every: 200 * time.Millisecond, &config.Alive: time.Second, &config.Timeout: 2 * time.Second,
	} {
		if *d == 0 {
			*d = otherwise
		}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Registration{config}, nil
}

// Run keeps the catalog true until ctx ends, and then takes the node out of it. It returns an error if that failed.
func (r *Registration) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.config.Every)
	defer ticker.Stop()
	var told State
	var at time.Time // when the catalog last agreed; zero: it does not know
	failing := false
	for ctx.Err() == nil {
		now := r.config.State()
		var err error
		switch {
		case at.IsZero() || now != told:
			err = r.attempt(ctx, func(ctx context.Context) error { return r.config.Catalog.Tell(ctx, now) })
		case time.Since(at) >= r.config.Alive:
			err = r.attempt(ctx, func(ctx context.Context) error { return r.config.Catalog.Alive(ctx, now) })
		default:
			r.wait(ctx, ticker.C)
			continue
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if !failing {
				r.config.Logger.Warn("this node's registration fails; it is tried again", "error", err)
			}
			failing, at = true, time.Time{}
			r.wait(ctx, ticker.C)
		default:
			if failing {
				r.config.Logger.Info("this node is registered again")
			}
			failing, told, at = false, now, time.Now()
		}
	}
	return r.remove(ctx)
}

func (r *Registration) wait(ctx context.Context, tick <-chan time.Time) {
	select {
	case <-tick:
	case <-ctx.Done():
	}
}

func (r *Registration) attempt(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	return do(ctx)
}

// remove takes the node out of the catalog; ctx has ended. It tries for as long as one attempt may take.
func (r *Registration) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.config.Timeout)
	defer cancel()
	ticker := time.NewTicker(r.config.Every)
	defer ticker.Stop()
	for {
		err := r.config.Catalog.Remove(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("this node is still in the catalog: %w", err)
		}
	}
}
