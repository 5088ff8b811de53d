package physical

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is what a data store is opened with and nobody may read: a password, a token. It prints "***", in logs, errors
// and encodings too; [Secret.Reveal] gives it.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Format prints "***" under every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// String gives "***".
func (Secret) String() string { return "***" }

// LogValue gives "***".
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText gives "***".
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }
