package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger hands what the client library logs to an slog.Logger: the library takes no other kind than zap's. Its
// warnings are about single attempts, whose errors the caller gets too, so they are debug messages here.
func zapLogger(to *slog.Logger) *zap.Logger {
	return zap.New(&logCore{to: to})
}

type logCore struct{ to *slog.Logger }

func (c *logCore) level(l zapcore.Level) slog.Level {
	if l > zapcore.WarnLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled reports whether a message of this level would be logged.
func (c *logCore) Enabled(l zapcore.Level) bool {
	return l > zapcore.DebugLevel && c.to.Enabled(context.Background(), c.level(l))
}

// With adds fields to every message.
func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	return &logCore{to: c.to.With(attrs(fields)...)}
}

// Check adds this core to an entry that it logs.
func (c *logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write logs one entry.
func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.to.Log(context.Background(), c.level(e.Level), "etcd client", append([]any{"message", e.Message}, attrs(fields)...)...)
	return nil
}

// Sync does nothing.
func (c *logCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	into := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(into)
	}
	var all []any
	for key, value := range into.Fields {
		all = append(all, key, value)
	}
	return all
}
