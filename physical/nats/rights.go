package nats

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	client "github.com/nats-io/nats.go"
)

// rights ends calls that the server refuses: it tells the connection which right the user lacks, and answers nobody who asked.
type rights struct {
	mu    sync.Mutex
	calls map[*call]struct{}
}

// call is one that publishes to subjects with this prefix.
type call struct {
	prefix string
	cancel context.CancelCauseFunc
}

// deniedError is a right that the user lacks.
type deniedError struct{ doing, subject string }

func (e *deniedError) Error() string {
	return fmt.Sprintf("the user has no right to %s %q: docs/stores/nats.md lists those that Locum needs", e.doing, e.subject)
}

var violation = regexp.MustCompile(`(?i)for (publish|subscription) to "([^"]+)"`)

// using gives a call a context that ends when the server refuses it.
func (r *rights) using(ctx context.Context, prefix string) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{prefix: prefix, cancel: cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls == nil {
		r.calls = make(map[*call]struct{})
	}
	r.calls[c] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		delete(r.calls, c)
		r.mu.Unlock()
		cancel(nil)
	}
}

// noticed ends the calls that an error of the connection is about. Without a subscription to its inbox nobody gets an answer.
func (r *rights) noticed(err error) {
	found := violation.FindStringSubmatch(err.Error())
	if !errors.Is(err, client.ErrPermissionViolation) || found == nil {
		return
	}
	denied := &deniedError{doing: "publish to", subject: found[2]}
	if strings.EqualFold(found[1], "subscription") {
		denied.doing = "subscribe to"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.calls {
		if strings.HasPrefix(denied.subject, c.prefix) || denied.doing == "subscribe to" && strings.HasPrefix(denied.subject, client.InboxPrefix) {
			c.cancel(denied)
		}
	}
}
