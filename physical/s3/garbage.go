package s3

import (
	"context"
	"strings"
	"sync"
	"time"
)

// collector deletes objects that are in no index any more, a while after they were replaced, so that reads under way on other
// nodes need not begin anew. What it forgets, at a crash say, a sweep finds.
type collector struct {
	store *Store
	wake  chan struct{}

	mu    sync.Mutex
	young []string // replaced since the last round
	sweep bool
}

const (
	garbageAge   = 30 * time.Second
	garbageMost  = 100_000 // names that are remembered; more are left to a sweep
	deleteAtOnce = 1000    // S3's limit
)

func (c *collector) add(objects []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young)+len(objects) <= garbageMost {
		c.young = append(c.young, objects...)
	} else {
		c.sweep = true
	}
}

// sweepSoon has the next round look for what was forgotten.
func (c *collector) sweepSoon() {
	c.mu.Lock()
	c.sweep = true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run deletes, until the store is closed.
func (c *collector) run() {
	var old []string
	ticker := time.NewTicker(garbageAge)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.remove(old)
			c.mu.Lock()
			old, c.young = c.young, nil
			c.mu.Unlock()
		case <-c.wake:
		case <-c.store.life.Done():
			return
		}
		c.mu.Lock()
		sweep := c.sweep
		c.sweep = false
		c.mu.Unlock()
		if sweep {
			if err := c.sweepOnce(c.store.life); err != nil && c.store.life.Err() == nil {
				c.store.cfg.Logger.Warn("s3: objects of no use not looked for", "error", err)
			}
		}
	}
}

func (c *collector) remove(names []string) {
	for len(names) > 0 && c.store.life.Err() == nil {
		n := min(len(names), deleteAtOnce)
		if err := c.store.objects.remove(c.store.life, names[:n]); err != nil && c.store.life.Err() == nil {
			c.store.cfg.Logger.Warn("s3: objects of no use not deleted", "objects", n, "error", err)
		}
		names = names[n:]
	}
}

// sweepOnce deletes the objects that were written for an index before the present one and are not in it: no swap can bring them
// in any more, since it would have to be one from an index that is not there any more.
func (c *collector) sweepOnce(ctx context.Context) error {
	v, err := c.store.views.present(ctx)
	if err != nil {
		return err
	}
	used := make(map[string]bool, len(v.Pages))
	for _, ref := range v.Pages {
		used[ref.Object] = true
		p, err := c.store.page(ctx, ref)
		if err != nil {
			return err // replaced meanwhile: the next sweep
		}
		for i := range p.items {
			if o := p.items[i].object; o != "" {
				used[o] = true
			}
		}
	}
	end := objectPrefix(v.Version)
	var garbage []string
	for after, more := "", true; more; {
		var names []string
		if names, more, err = c.store.objects.list(ctx, objectsDir, after); err != nil {
			return err
		}
		for _, name := range names {
			after = name
			if name >= end || !strings.HasPrefix(name, objectsDir) {
				more = false
				break
			}
			if !used[name] {
				garbage = append(garbage, name)
			}
		}
	}
	if len(garbage) > 0 {
		c.store.cfg.Logger.Info("s3: deleting objects of no use", "objects", len(garbage))
	}
	c.remove(garbage)
	return nil
}
