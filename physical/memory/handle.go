package memory

import (
	"context"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// Handle is one node's way to a Store: a [physical.Backend], a [physical.HABackend] and a
// [physical.Watcher].
type Handle struct {
	store *Store
	once  sync.Once
	done  chan struct{} // closed by Close
}

var (
	_ physical.Backend   = (*Handle)(nil)
	_ physical.HABackend = (*Handle)(nil)
	_ physical.Watcher   = (*Handle)(nil)
)

// Caps says what the store can do.
func (h *Handle) Caps() physical.Caps { return h.store.caps }

// Close ends this handle's use of the store; its other handles go on.
func (h *Handle) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// enter begins a method: it returns why the method cannot be carried out, or nil with the store locked.
func (h *Handle) enter(ctx context.Context) error {
	select {
	case <-h.done:
		return physical.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.store.mu.Lock()
	return nil
}
