package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Role is what an application is told of its node.
type Role struct {
	Active bool
	Term   uint64 // of the leadership; of the last one known on a standby
}

func (r Role) String() string {
	if r.Active {
		return "active"
	}
	return "standby"
}

// runHooks carries hooks out in their order. The first that fails to make the node active is the last that is tried; of those that take
// back, each has its turn.
func (a *Application) runHooks(ctx context.Context, name string, hooks []string, role Role) error {
	var failed error
	for i, hook := range hooks {
		began := time.Now()
		limited, cancel := context.WithTimeoutCause(ctx, a.cfg.HookTimeout, fmt.Errorf("not done within %s", a.cfg.HookTimeout))
		err := a.runHook(limited, hook, role)
		cancel()
		if a.cfg.Observer.Hook != nil {
			a.cfg.Observer.Hook(name, time.Since(began), err)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s[%d]: %w", name, i, err))
			if role.Active {
				return failed
			}
			continue
		}
		a.log.Info("hook carried out", "hook", fmt.Sprintf("%s[%d]", name, i), "role", role.String(), "term", role.Term)
	}
	return failed
}

func (a *Application) runHook(ctx context.Context, hook string, role Role) error {
	if strings.HasPrefix(hook, "http://") || strings.HasPrefix(hook, "https://") {
		return a.post(ctx, hook, role)
	}
	if a.cfg.Runner == nil {
		return ErrGuardian
	}
	return a.runToEnd(ctx, Command{
		Args: []string{"/bin/sh", "-c", hook}, Env: a.environment(role, ""), Dir: a.cfg.Dir, User: a.cfg.User, Group: a.cfg.Group,
		Containment: a.cfg.Containment, Host: true, Beyond: !role.Active,
	})
}

// runToEnd runs a command until it ends, or until ctx does, and returns once nothing of it is left.
func (a *Application) runToEnd(ctx context.Context, c Command) error {
	p, err := a.cfg.Runner.Start(ctx, c)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Kill()
		<-p.Done() // the runner sees to it
		return context.Cause(ctx)
	}
	if exit := p.Exit(); exit.Shell() != 0 {
		return fmt.Errorf("%s", exit)
	}
	return nil
}

// post tells the role by HTTP. Only a 2xx agrees.
func (a *Application) post(ctx context.Context, target string, role Role) error {
	body, err := json.Marshal(map[string]any{"application": a.cfg.Name, "role": role.String(), "term": role.Term, "node": a.cfg.Node})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the URL cannot be used: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // the code is what counts
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("answered %s", answer.Status)
	}
	return nil
}
