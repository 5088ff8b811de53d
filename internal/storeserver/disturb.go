package storeserver

import (
	"context"
	"time"
)

// Disturbances are what can befall a store: each function does something to the server, or to the network that the proxy
// stands for, and mends it; crash ends the server at once and starts it again. They take some four seconds together, and what
// the server needs to start.
func Disturbances(t T, crash func() error, server *Process, proxy *Proxy) []func(ctx context.Context) {
	wait := func(ctx context.Context, d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	network := func(f Fault, d time.Duration) func(context.Context) {
		return func(ctx context.Context) {
			proxy.Set(f)
			wait(ctx, d)
			proxy.Heal()
		}
	}
	return []func(context.Context){
		func(context.Context) {
			if err := crash(); err != nil {
				t.Errorf("%v", err)
			}
		},
		func(context.Context) { proxy.CloseConns() },
		network(Fault{Answers: CutFirst}, 300*time.Millisecond),
		network(Fault{Requests: CutHalf}, 300*time.Millisecond),
		network(Fault{Answers: CutHalf}, 300*time.Millisecond),
		network(Fault{Requests: Stall, Answers: Stall}, 800*time.Millisecond),
		network(Fault{Delay: 30 * time.Millisecond}, 300*time.Millisecond),
		func(ctx context.Context) {
			server.Pause()
			wait(ctx, 500*time.Millisecond)
			server.Resume()
		},
	}
}
