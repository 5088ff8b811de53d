package api

import (
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// RateLimit bounds how often one client address may ask for what needs no token and is not a status: init, unseal, join. Each
// address has Burst requests at once, and PerSecond more each second; beyond that the answer is 429. The zero RateLimit
// means the defaults, a negative PerSecond no limit.
type RateLimit struct {
	PerSecond float64 // default 50
	Burst     int     // default 200
}

const (
	defaultPerSecond = 50
	defaultBurst     = 200

	maxClients = 4096        // addresses known at once; further ones share an allowance
	sweepEach  = time.Second // at most so often are addresses looked for that can be forgotten
)

// limiter keeps an allowance for each client address, within bounded memory: an address whose allowance is full again is
// forgotten, and where too many are busy at once, those that come then share one.
type limiter struct {
	perSecond float64
	burst     float64
	addr      func(*http.Request) netip.Addr
	now       func() time.Time

	mu      sync.Mutex
	clients map[netip.Addr]*allowance
	others  allowance
	swept   time.Time
}

type allowance struct {
	left float64
	at   time.Time // when left was that
}

func newLimiter(l RateLimit, addr func(*http.Request) netip.Addr) *limiter {
	if l.PerSecond < 0 {
		return nil
	}
	if l.PerSecond == 0 {
		l.PerSecond = defaultPerSecond
	}
	if l.Burst <= 0 {
		l.Burst = defaultBurst
	}
	if addr == nil {
		addr = remoteAddr
	}
	lim := &limiter{perSecond: l.PerSecond, burst: float64(l.Burst), addr: addr, now: time.Now, clients: map[netip.Addr]*allowance{}}
	lim.others = allowance{left: lim.burst, at: lim.now()}
	return lim
}

// remoteAddr is the other end of the connection; the zero Addr if that has none, as on a Unix socket.
func remoteAddr(r *http.Request) netip.Addr {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	return from.Addr()
}

// wait takes one request from its client's allowance, or returns how long to wait until there is one.
func (l *limiter) wait(r *http.Request) time.Duration {
	if l == nil {
		return 0
	}
	addr := l.addr(r)
	if !addr.IsValid() {
		return 0 // who is on this machine, through a socket that has its own mode and owner
	}
	if addr = addr.Unmap(); addr.Is6() {
		const network = 64 // one client has as many addresses
		p, _ := addr.WithZone("").Prefix(network)
		addr = p.Addr()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	c := l.clients[addr]
	if c == nil {
		if c = l.admit(addr, now); c == nil {
			c = &l.others
		}
	}
	l.refill(c, now)
	if c.left >= 1 {
		c.left--
		return 0
	}
	return time.Duration((1 - c.left) / l.perSecond * float64(time.Second))
}

func (l *limiter) refill(c *allowance, now time.Time) {
	c.left = min(l.burst, c.left+l.perSecond*max(0, now.Sub(c.at).Seconds()))
	c.at = now
}

// admit gives an address its own allowance; nil if there are too many.
func (l *limiter) admit(addr netip.Addr, now time.Time) *allowance {
	if len(l.clients) >= maxClients && now.Sub(l.swept) >= sweepEach {
		l.swept = now
		for other, c := range l.clients {
			if l.refill(c, now); c.left >= l.burst {
				delete(l.clients, other)
			}
		}
	}
	if len(l.clients) >= maxClients {
		return nil
	}
	c := &allowance{left: l.burst, at: now}
	l.clients[addr] = c
	return c
}

// limited answers 429 if the client's allowance is used up.
func (l *local) limited(w http.ResponseWriter, r *http.Request) bool {
	wait := l.limiter.wait(r)
	if wait == 0 {
		return false
	}
	seconds := strconv.Itoa(int(math.Ceil(wait.Seconds())))
	w.Header().Set("Retry-After", seconds)
	l.fail(w, r, &Error{http.StatusTooManyRequests, "too many requests without a token from this address: send it again after " + seconds + " s", ProcessedNo})
	return true
}
