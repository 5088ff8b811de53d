package storeserver

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Proxies are proxies before one server, one for each node that uses it.
type Proxies struct {
	t      T
	target string

	mu  sync.Mutex
	all map[int]*Proxy
}

// NewProxies makes them before the server at target, "host:port". They end with the test.
func NewProxies(t T, target string) *Proxies {
	return &Proxies{t: t, target: target, all: map[int]*Proxy{}}
}

// Of is node n's.
func (p *Proxies) Of(n int) *Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all[n] == nil {
		p.all[n] = NewProxy(p.t, p.target)
	}
	return p.all[n]
}

// Restart is, for all nodes, as if the server restarted, and is back after a while.
func (p *Proxies) Restart(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		one.Refuse()
	}
	<-time.After(after)
	for _, one := range p.all {
		one.Heal()
	}
}

// DiesSilently abandons the proxy's connections and asks again: who asks on a dead one waits in vain, the next goes over another. ask gives
// the answer, an error, where it gets one within limit.
func DiesSilently(t T, proxy *Proxy, limit time.Duration, answer error, ask func(context.Context) error) {
	t.Helper()
	within := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		return ask(ctx)
	}
	err := answer
	for tries := 0; tries < 10 && errors.Is(err, answer); tries++ { // a connection more may have been on its way
		proxy.Abandon()
		err = within(200 * time.Millisecond)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("on the dead connection: %v", err)
	}
	if err := within(limit); !errors.Is(err, answer) {
		t.Errorf("afterwards: %v", err)
	}
}
