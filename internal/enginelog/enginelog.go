// Package enginelog passes the log of the raft library on to slog, for the two packages that run that library:
// physical/raft, with a disk, and cache, without.
package enginelog

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Log is a logger for the raft library. The library logs each failed heartbeat as an error;
// what concerns an operator is logged by the package that runs it, one line per change. So its lines go down a level
// and a line that repeats is let through once in repeatEvery.
type Log struct {
	to    *slog.Logger
	name  string
	extra []any
	seen  *repeats
}

const repeatEvery = 30 * time.Second

type repeats struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// New makes one that writes to a logger.
func New(to *slog.Logger) *Log {
	return &Log{to: to.With("part", "raft engine"), seen: &repeats{last: map[string]time.Time{}}}
}

// first reports whether the line was not let through lately.
func (r *repeats) first(line string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.last[line]) < repeatEvery {
		return false
	}
	if len(r.last) > 256 {
		clear(r.last)
	}
	r.last[line] = now
	return true
}

// Log translates level and arguments.
func (l *Log) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Error:
		to = slog.LevelWarn
	case hclog.Trace, hclog.NoLevel:
		to = slog.LevelDebug - 4
	}
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	attrs := append(append(make([]any, 0, len(l.extra)+len(args)), l.extra...), args...)
	for i, a := range attrs {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			attrs[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	if to == slog.LevelWarn && !l.seen.first(msg+fmt.Sprint(argOf(attrs, "peer"))) {
		return
	}
	l.to.Log(context.Background(), to, msg, attrs...)
}

func argOf(args []any, key string) any {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == key {
			return args[i+1]
		}
	}
	return ""
}

func (l *Log) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *Log) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *Log) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *Log) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *Log) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *Log) enabled(level slog.Level) bool {
	return l.to.Enabled(context.Background(), level)
}

func (l *Log) IsTrace() bool { return l.enabled(slog.LevelDebug - 4) }
func (l *Log) IsDebug() bool { return l.enabled(slog.LevelDebug) }
func (l *Log) IsInfo() bool  { return l.enabled(slog.LevelDebug) }
func (l *Log) IsWarn() bool  { return l.enabled(slog.LevelDebug) }
func (l *Log) IsError() bool { return l.enabled(slog.LevelWarn) }

func (l *Log) ImpliedArgs() []any { return l.extra }

func (l *Log) With(args ...any) hclog.Logger {
	c := *l
	c.extra = append(append([]any{}, l.extra...), args...)
	return &c
}

func (l *Log) Name() string { return l.name }

func (l *Log) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *Log) ResetNamed(name string) hclog.Logger {
	c := *l
	c.name = name
	return &c
}

func (l *Log) SetLevel(hclog.Level)  {}
func (l *Log) GetLevel() hclog.Level { return hclog.Debug }

func (l *Log) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}

func (l *Log) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
