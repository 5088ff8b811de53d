package storeserver

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Flow is what becomes of what is sent one way.
type Flow int

const (
	// Pass: it arrives.
	Pass Flow = iota
	// Stall: it is kept, and arrives when the fault has healed, as TCP has it after a network lost packets for a
	// while. New connections are accepted, and wait.
	Stall
	// CutFirst: the connection is closed both ways when the first byte comes, which is lost.
	CutFirst
	// CutHalf: half of what comes next arrives, then the connection is closed both ways.
	CutHalf
)

// Fault is what a Proxy does to connections.
type Fault struct {
	Requests Flow          // from clients to the server
	Answers  Flow          // from the server to clients
	Delay    time.Duration // later than it came, each way
	Refuse   bool          // connections are closed at once, open ones and new ones
}

// AnswerFaults gives the ways in which an answer fails to come, by turns: cut, cut in half, or late.
func AnswerFaults() func() Fault {
	faults := []Fault{{Answers: CutFirst}, {Answers: CutHalf}, {Delay: 30 * time.Millisecond}}
	var turn atomic.Int64
	return func() Fault { return faults[int(turn.Add(1))%len(faults)] }
}

// Proxy passes TCP connections on to a server, and does to them what networks do.
type Proxy struct {
	target   string
	listener net.Listener
	all      sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc

	mu      sync.Mutex
	fault   Fault
	changed chan struct{} // closed and made anew by Set
	conns   map[net.Conn]struct{}
	age     int // how often Abandon was called
}

// NewProxy starts a proxy before the server at target, "host:port". It ends with the test.
func NewProxy(t T, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", Loopback(FreePort(t)))
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p := &Proxy{target: target, listener: listener, changed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.all.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// Addr is where clients connect to, "host:port".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes the fault from now on, also for connections that are open.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if f.Refuse {
		p.CloseConns()
	}
}

// Heal ends every fault.
func (p *Proxy) Heal() { p.Set(Fault{}) }

// Stall makes a black hole of the network, both ways.
func (p *Proxy) Stall() { p.Set(Fault{Requests: Stall, Answers: Stall}) }

// CutAnswers lets requests through, and closes the connection in place of the answer.
func (p *Proxy) CutAnswers() { p.Set(Fault{Answers: CutFirst}) }

// Disturb does to the answers what is next of faults (see [AnswerFaults]), until heal is called; without faults it is CutAnswers.
func (p *Proxy) Disturb(faults func() Fault) (heal func()) {
	fault := Fault{Answers: CutFirst}
	if faults != nil {
		fault = faults()
	}
	p.Set(fault)
	return p.Heal
}

// Refuse closes connections at once, open ones and new ones, as a server that does not run.
func (p *Proxy) Refuse() { p.Set(Fault{Refuse: true}) }

// Abandon leaves the connections that are open without a word for good, as a machine that lost its power does; new ones pass, as
// when another machine has taken its address.
func (p *Proxy) Abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age++
}

// abandoned reports whether a connection of this age is.
func (p *Proxy) abandoned(age int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.age != age
}

// CloseConns closes the connections that are open; new ones pass.
func (p *Proxy) CloseConns() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.CloseConns()
	p.all.Wait()
}

// state returns the fault in force, and what tells that it has changed.
func (p *Proxy) state() (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.changed
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(client) {
			continue
		}
		p.mu.Lock()
		age := p.age
		p.mu.Unlock()
		p.all.Go(func() {
			defer p.drop(client)
			p.serve(client, age)
		})
	}
}

// keep has Close end the connection too; false, and the connection closed, if it is not to be.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.Refuse || p.ctx.Err() != nil {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = c.Close()
	delete(p.conns, c)
}

// serve passes on what goes over one connection until one side closes.
func (p *Proxy) serve(client net.Conn, age int) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	if !p.await(ctx, func(f Fault) bool { return f.Requests != Stall }) {
		return
	}
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", p.target)
	if err != nil || !p.keep(server) {
		return
	}
	defer p.drop(server)
	var ways sync.WaitGroup
	ways.Go(func() {
		defer server.Close()
		defer client.Close()
		defer cancel()
		p.copy(ctx, server, client, age, func(f Fault) Flow { return f.Requests })
	})
	ways.Go(func() {
		defer server.Close()
		defer client.Close()
		defer cancel()
		p.copy(ctx, client, server, age, func(f Fault) Flow { return f.Answers })
	})
	ways.Wait()
}

// await waits until the fault is one that ok accepts; false if the connection ends first.
func (p *Proxy) await(ctx context.Context, ok func(Fault) bool) bool {
	for {
		f, changed := p.state()
		if ok(f) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// copy passes on one way, piece by piece, under the fault in force when a piece has come.
func (p *Proxy) copy(ctx context.Context, to, from net.Conn, age int, way func(Fault) Flow) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if p.abandoned(age) {
			<-ctx.Done()
			return
		}
		if n > 0 && !p.pass(ctx, to, buf[:n], way) {
			return
		}
		if err != nil {
			return
		}
	}
}

// pass hands one piece on; false if that was the end of the connection.
func (p *Proxy) pass(ctx context.Context, to net.Conn, piece []byte, way func(Fault) Flow) bool {
	f, _ := p.state()
	switch way(f) {
	case CutFirst:
		return false
	case CutHalf:
		_, _ = to.Write(piece[:len(piece)/2])
		return false
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	if !p.await(ctx, func(f Fault) bool { return way(f) != Stall }) {
		return false
	}
	_, err := to.Write(piece)
	return err == nil
}
