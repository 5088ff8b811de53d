package migrate

import (
	"context"
	"fmt"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// pageSize is how many names are listed at a time.
const pageSize = 500

// walk calls see with each key of a store that comes after the key from ("": all), in the order of the tree: folder by folder,
// each in List's order.
func walk(ctx context.Context, store physical.Backend, prefix, from string, see func(key string) error) error {
	after := ""
	if rest, ok := strings.CutPrefix(from, prefix); ok && from != "" {
		if folder, _, deeper := strings.Cut(rest, "/"); deeper {
			after = folder + "/"
			if err := walk(ctx, store, prefix+after, from, see); err != nil {
				return err
			}
		} else {
			after = rest
		}
	}
	for {
		names, err := store.List(ctx, prefix, after, pageSize)
		if err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "/") {
				err = walk(ctx, store, prefix+name, "", see)
			} else {
				err = see(prefix + name)
			}
			if err != nil {
				return err
			}
		}
		if len(names) < pageSize {
			return nil
		}
		after = names[len(names)-1]
	}
}
