package cache

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

// engineLog passes the raft library's log on to slog. The library logs each failed heartbeat as an error;
// what concerns an operator is logged by this package, one line per change. So its lines go down a level
// and a line that repeats is let through once in repeatEvery.
type engineLog struct {
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

func newEngineLog(to *slog.Logger) *engineLog {
	return &engineLog{to: to.With("part", "raft engine"), seen: &repeats{last: map[string]time.Time{}}}
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
func (l *engineLog) Log(level hclog.Level, msg string, args ...any) {
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

func (l *engineLog) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *engineLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *engineLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *engineLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *engineLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *engineLog) enabled(level slog.Level) bool {
	return l.to.Enabled(context.Background(), level)
}

func (l *engineLog) IsTrace() bool { return l.enabled(slog.LevelDebug - 4) }
func (l *engineLog) IsDebug() bool { return l.enabled(slog.LevelDebug) }
func (l *engineLog) IsInfo() bool  { return l.enabled(slog.LevelDebug) }
func (l *engineLog) IsWarn() bool  { return l.enabled(slog.LevelDebug) }
func (l *engineLog) IsError() bool { return l.enabled(slog.LevelWarn) }

func (l *engineLog) ImpliedArgs() []any { return l.extra }

func (l *engineLog) With(args ...any) hclog.Logger {
	c := *l
	c.extra = append(append([]any{}, l.extra...), args...)
	return &c
}

func (l *engineLog) Name() string { return l.name }

func (l *engineLog) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *engineLog) ResetNamed(name string) hclog.Logger {
	c := *l
	c.name = name
	return &c
}

func (l *engineLog) SetLevel(hclog.Level)  {}
func (l *engineLog) GetLevel() hclog.Level { return hclog.Debug }

func (l *engineLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}

func (l *engineLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
