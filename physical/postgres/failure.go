package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/locum-ha/locum/physical"
)

// SQLSTATE codes that mean something of their own here.
const (
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeLockTimeout   = "55P03"
	codeReadOnly      = "25006"
	codeNoRight       = "42501"
	codeNoTable       = "42P01"
	codeNoFunction    = "42883"
	codeNoSchema      = "3F000"
	codeLimit         = "54000"
)

// refusal returns what the server itself said, or nil if err is not an answer of the server.
func refusal(err error) *pgconn.PgError {
	var refused *pgconn.PgError
	var connecting *pgconn.ConnectError
	if errors.As(err, &connecting) || !errors.As(err, &refused) {
		return nil
	}
	return refused
}

// isCode reports whether the server refused with one of these codes.
func isCode(err error, codes ...string) bool {
	refused := refusal(err)
	if refused == nil {
		return false
	}
	for _, code := range codes {
		if refused.Code == code {
			return true
		}
	}
	return false
}

// rolledBack reports whether the server undid a statement only because another came in between: the same again may succeed.
func rolledBack(err error) bool { return isCode(err, codeSerialization, codeDeadlock) }

// ending reports whether the server was about to end the session or itself. What it was doing is then perhaps done: a
// session that is ended while it waits for replicas has committed.
func ending(refused *pgconn.PgError) bool {
	return refused.Severity == "FATAL" || refused.Severity == "PANIC" || strings.HasPrefix(refused.Code, "57P") || strings.HasPrefix(refused.Code, "08")
}

// passing reports whether the server cannot serve now, and may be later: too few resources, a limit of time, a
// replica that was the primary once.
func passing(refused *pgconn.PgError) bool {
	switch refused.Code {
	case codeSerialization, codeDeadlock, codeLockTimeout, codeReadOnly, "57014":
		return true
	}
	return strings.HasPrefix(refused.Code, "53") || strings.HasPrefix(refused.Code, "58")
}

// notSent translates an error from before anything was sent: no connection was to be had.
func (s *Store) notSent(ctx context.Context, err error) error {
	switch {
	case s.isClosed():
		return physical.ErrClosed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: no connection to PostgreSQL: %w", physical.ErrUnavailable, plain(err))
}

// failed translates the error of a statement that was sent, or may have been; writes says whether it changes anything.
func (s *Store) failed(ctx context.Context, err error, writes bool) error {
	refused := refusal(err)
	switch {
	case err == nil:
		return nil
	case refused != nil && !ending(refused):
		return s.refused(refused)
	case writes && ctx.Err() != nil:
		return fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx))
	case writes:
		return fmt.Errorf("%w: %w", physical.ErrUnknown, plain(err))
	}
	return s.notSent(ctx, err)
}

// refused translates what the server refused and did not do.
func (s *Store) refused(r *pgconn.PgError) error {
	switch {
	case r.Code == codeLockTimeout:
		return fmt.Errorf("%w: PostgreSQL: %w", physical.ErrUnavailable, errBlocked)
	case passing(r):
		return fmt.Errorf("%w: PostgreSQL: %w", physical.ErrUnavailable, plain(r))
	case r.Code == codeLimit:
		return fmt.Errorf("%w: PostgreSQL: %w", physical.ErrTooLarge, plain(r))
	case r.Code == codeNoRight:
		return fmt.Errorf("PostgreSQL: %w; run as an administrator:\n%s", plain(r), s.schema.grants(s.user))
	case r.Code == codeNoTable || r.Code == codeNoFunction || r.Code == codeNoSchema:
		return fmt.Errorf("PostgreSQL: %w: the tables of this storage are gone; start the node again to have them made", plain(r))
	}
	return fmt.Errorf("PostgreSQL: %w", plain(r))
}

// plain makes an error of text: no type of the client library leaves this package, and no detail that quotes values.
func plain(err error) error {
	var r *pgconn.PgError
	if errors.As(err, &r) {
		return fmt.Errorf("%s (SQLSTATE %s)", r.Message, r.Code)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return errors.New(err.Error())
}
