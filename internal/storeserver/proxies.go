package storeserver

import (
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
