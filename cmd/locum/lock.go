package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/supervise"
)

// How a lock is held while a command runs. The guardian, a process beside this one, has the time by which the command must
// have ended: it kills the command's whole tree then unless a renewal has moved it, also when this process is frozen or dead.

// lockEnv is where the command finds its lock's number.
const lockEnv = "LOCUM_LOCK_TERM"

// forever is a wait without end; each request is for a part of it.
const forever = time.Duration(1<<63 - 1)

type lockFlags struct {
	ttl, wait, stop time.Duration
	holder          string
	release         bool
}

func (a *app) lockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock NAME [-- COMMAND…]",
		Short: "Run a command on one machine at a time",
		Long: "Takes the named lock, runs the command while it is held, and releases it. The command finds " + lockEnv + " in its environment: the lock's own number, " +
			"which rises with every change of hands, for whatever should refuse a late predecessor. The command and all that it has started is ended before " +
			"the lock can be lost: SIGTERM when a renewal fails for too long, and SIGKILL in time, also if locum itself is killed or frozen. The exit code is the command's.\n\n" +
			"Without a command the lock is shown.",
		Example: "  locum lock report -- ./make-report\n  locum lock -wait 0s nightly -- ./backup    # not if it runs elsewhere\n  locum lock report",
		Args:    cobra.MinimumNArgs(1),
	}
	f := lockFlags{}
	cmd.Flags().DurationVar(&f.ttl, "ttl", 15*time.Second, "how `long` the lock outlives a machine that dies")
	cmd.Flags().DurationVar(&f.wait, "wait", forever, "how `long` to wait while another holds it; 0s: not at all")
	cmd.Flags().DurationVar(&f.stop, "stop-timeout", 3*time.Second, "how `long` the command may take to end after SIGTERM, when the lock is in danger; at most a third of -ttl")
	cmd.Flags().StringVar(&f.holder, "holder", "", "`who` holds it, for people; default: the host name")
	cmd.Flags().BoolVar(&f.release, "break", false, "take the lock from whoever holds it, without running anything")
	cmd.Flags().Lookup("wait").DefValue = "forever"
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		switch {
		case f.release && len(args) == 1:
			return c.BreakLock(cmd.Context(), args[0])
		case f.release:
			return errors.New("-break runs no command")
		case len(args) == 1:
			return a.showLock(cmd, c, args[0], *format)
		case f.ttl < time.Second || f.wait < 0 || f.stop < 0:
			return errors.New("-ttl is 1s at least, and -wait and -stop-timeout are not negative")
		}
		return a.runLocked(cmd.Context(), c, args[0], args[1:], f)
	})
}

func (a *app) showLock(cmd *cobra.Command, c *client.Client, name, format string) error {
	l, err := c.Lock(cmd.Context(), name)
	if err != nil {
		return err
	}
	return a.show(format, l, func(w io.Writer) {
		state := "free"
		if l.Held {
			state = "held, for " + l.Left + " more unless it is renewed"
		}
		pairs(w, "Lock", l.Name, "State", state, "Holder", l.Holder, "Number", strconv.FormatUint(l.Number, 10), "TTL", l.TTL, "Since", l.Since)
	})
}

// runLocked takes the lock and runs the command under it.
func (a *app) runLocked(ctx context.Context, c *client.Client, name string, args []string, f lockFlags) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if f.holder == "" {
		f.holder, _ = os.Hostname() // the lock works without a name to show
	}
	h := &holding{client: c, flags: f, ask: client.LockRequest{Name: name, Holder: f.holder, Secret: client.Secret(rand.Text()), TTL: f.ttl}}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case s := <-signals:
			signals <- s // nothing runs yet: whoever comes next is told, too
			stop()
		case <-waiting.Done():
		}
	}()
	if err := h.acquire(waiting); err != nil {
		return err
	}
	stop()
	defer h.release(a)
	guard, err := supervise.StartGuardian(ctx, supervise.GuardianConfig{Logger: slog.New(slog.NewTextHandler(a.err, nil))})
	if err != nil {
		return err
	}
	defer guard.Close()
	h.guard = guard
	h.tell()
	process, err := guard.Start(ctx, supervise.Command{Args: args, Env: append(os.Environ(), fmt.Sprintf("%s=%d", lockEnv, h.number), "LOCUM_LOCK="+name)})
	if err != nil {
		return err
	}
	if err := h.hold(ctx, process, signals); err != nil {
		a.report(err)
	}
	if code := process.Exit().Shell(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// holding is a lock that this process holds.
type holding struct {
	client   *client.Client
	flags    lockFlags
	ask      client.LockRequest
	guard    supervise.Guard
	number   uint64
	deadline boottime.Instant // by then the command must have ended
}

// longPoll is how long one request waits for the lock.
const longPoll = 30 * time.Second

// acquire waits for the lock for as long as the flags say.
func (h *holding) acquire(ctx context.Context) error {
	begun := boottime.Now()
	for {
		asked := boottime.Now()
		h.ask.Wait = min(max(h.flags.wait-asked.Sub(begun), 0), longPoll)
		got, err := h.client.AcquireLock(ctx, h.ask)
		var answer *client.Error
		switch {
		case err == nil:
			h.number = got.Number
			if boottime.Since(asked) < h.flags.ttl/4 {
				h.deadline = h.until(asked)
				return nil
			}
			// It was granted somewhere in the wait: a renewal tells that it is held still, and from when its TTL counts.
			if lost := h.renew(ctx); lost == nil {
				return nil
			}
			continue
		case ctx.Err() != nil:
			return errors.New("interrupted while waiting for the lock")
		case errors.As(err, &answer) && answer.Status == http.StatusConflict:
			if boottime.Since(begun) < h.flags.wait {
				continue
			}
			return err
		case errors.Is(err, client.ErrUnknown): // under its secret the same request may be made again
		default:
			return err
		}
		if !pause(ctx, time.Second) {
			return errors.New("interrupted while waiting for the lock")
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// until is when the command must have ended if no later renewal succeeds: a tenth of the TTL early.
func (h *holding) until(asked boottime.Instant) boottime.Instant {
	return asked.Add(h.flags.ttl - min(h.flags.ttl/10, time.Second))
}

// renew extends the lock. Only an answer that says so means that it is lost; all else is tried again.
func (h *holding) renew(ctx context.Context) error {
	asked := boottime.Now()
	limit, cancel := context.WithTimeout(ctx, max(h.flags.ttl/3, 500*time.Millisecond))
	defer cancel()
	if _, err := h.client.RenewLock(limit, h.ask); err != nil {
		return err
	}
	h.deadline = h.until(asked)
	return nil
}

func (h *holding) tell() { h.guard.Lease(physical.Grant{TTL: h.flags.ttl}, h.deadline) }

// mercy is when, from now, the command must be sent SIGTERM to have its time before SIGKILL: the guardian kills a little before the deadline.
func (h *holding) mercy() time.Duration {
	deadline := h.deadline.Add(-min(h.flags.ttl/20, 250*time.Millisecond))
	return deadline.Add(-min(h.flags.stop, h.flags.ttl/3)).Sub(boottime.Now())
}

// hold renews the lock until the command has ended, at a third of its TTL, and sooner after a failure. Signals go to the command; a second
// one of a kind that ends it kills it.
func (h *holding) hold(ctx context.Context, p supervise.Process, signals <-chan os.Signal) error {
	ticker, last := time.NewTicker(h.flags.ttl/3), time.NewTimer(h.mercy())
	defer ticker.Stop()
	defer last.Stop()
	renewals, over := make(chan error, 1), make(chan struct{})
	defer close(over)
	renew := func() {
		err := h.renew(ctx)
		if err == nil {
			h.tell()
		}
		renewals <- err
	}
	var danger error
	end := func(why error) {
		if danger == nil {
			danger = why
			_ = p.Signal(syscall.SIGTERM) // if it has ended, that is what is wanted
		}
	}
	failed := errors.New("no answer yet")
	asked, busy := 0, false
	for {
		select {
		case <-p.Done():
			if busy {
				<-renewals
			}
			return danger
		case s := <-signals:
			if asked++; asked > 1 && s != syscall.SIGHUP {
				p.Kill()
			} else if err := p.Signal(s.(syscall.Signal)); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
		case <-ticker.C:
			if !busy {
				busy = true
				go renew()
			}
		case err := <-renewals:
			busy = false
			switch {
			case err == nil:
				ticker.Reset(h.flags.ttl / 3)
				last.Reset(h.mercy())
			case isLost(err):
				end(fmt.Errorf("the lock is lost, and the command is ended: %w", err))
			default:
				failed = err
				ticker.Reset(h.flags.ttl / 15)
			}
		case <-last.C:
			end(fmt.Errorf("the lock cannot be renewed, and the command is ended before it runs out: %w", failed))
		}
	}
}

// isLost: the answer is that somebody else may have it. Any other failure is tried again.
func isLost(err error) bool {
	var answer *client.Error
	return errors.As(err, &answer) && answer.Status == http.StatusConflict
}

// release gives the lock up. If nobody can be told it runs out by itself.
func (h *holding) release(a *app) {
	ctx, cancel := context.WithTimeout(context.Background(), max(h.flags.ttl/3, time.Second))
	defer cancel()
	if err := h.client.ReleaseLock(ctx, h.ask); err != nil {
		a.warn(fmt.Sprintf("the lock was not released and runs out within %s: %v", h.flags.ttl, err))
	}
}
