package listener

import (
	"net/http"
	"sync"
)

// maxIdleWorkers is how many wait for the next request.
const maxIdleWorkers = 64

// workers run handlers on stacks that have grown already. net/http's HTTP/2 runs each request in a goroutine of its own, whose stack
// a handler that goes deep doubles three times, each time by a copy of all frames.
type workers struct {
	handler http.Handler

	mu   sync.Mutex
	idle []*worker
	over bool
	all  sync.WaitGroup
}

type worker struct {
	w     http.ResponseWriter
	r     *http.Request
	begin chan bool // false: it is to end
	done  chan any  // what the handler panicked with
}

// ServeHTTP returns when the handler has.
func (p *workers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := p.take()
	if k == nil {
		p.handler.ServeHTTP(w, r)
		return
	}
	k.w, k.r = w, r
	k.begin <- true
	v := <-k.done
	k.w, k.r = nil, nil
	p.put(k)
	if v != nil {
		panic(v)
	}
}

// take is nil at the end.
func (p *workers) take() *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	if n := len(p.idle); n > 0 {
		k := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return k
	}
	k := &worker{begin: make(chan bool, 1), done: make(chan any, 1)}
	p.all.Go(func() {
		for <-k.begin {
			p.serve(k)
		}
	})
	return k
}

func (p *workers) serve(k *worker) {
	defer func() { k.done <- recover() }()
	p.handler.ServeHTTP(k.w, k.r)
}

func (p *workers) put(k *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || len(p.idle) == maxIdleWorkers {
		k.begin <- false
		return
	}
	p.idle = append(p.idle, k)
}

// close ends those that wait, and has the others end with their requests.
func (p *workers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for _, k := range p.idle {
		k.begin <- false
	}
	p.idle = nil
}
