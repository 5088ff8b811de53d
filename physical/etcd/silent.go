package etcd

import (
	"context"
	"time"
)

// firstWait is how long one of several servers may be silent to what can be asked again of the next; it is twice as long whenever all
// have been asked, so that servers that are slow are not asked faster than they answer. A server that is frozen keeps its connections
// open, and the client library gives them up after keepAlive and keepAliveAnswer only.
const firstWait = time.Second

// The library asks a server that is silent for a sign of life: it takes no shorter time than 10 s.
const (
	keepAlive       = 10 * time.Second
	keepAliveAnswer = 2 * time.Second
)

// asked does what may be done twice: the library takes its servers by turns, so that another one is asked when one is silent.
func asked[R any](ctx context.Context, s *Store, do func(context.Context) (R, error)) (R, error) {
	if len(s.config.Endpoints) == 1 {
		return do(ctx)
	}
	wait := firstWait
	for n := 1; ; n++ {
		attempt, cancel := context.WithTimeout(ctx, wait)
		got, err := do(attempt)
		silent := err != nil && attempt.Err() != nil && ctx.Err() == nil
		cancel()
		if !silent {
			return got, err
		}
		if n%len(s.config.Endpoints) == 0 {
			wait *= 2
		}
	}
}
