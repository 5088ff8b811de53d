package diagnose

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"syscall"

	"github.com/locum-ha/locum/internal/config"
)

// ports asks this node's own listeners, and binds those that nobody has.
func (r *run) ports() {
	for i, l := range r.cfg.Listeners {
		r.apiPort(i, l)
	}
	if r.cfg.ClusterListen() != "" && r.cfg.HAEnabled() {
		r.ownClusterPort(r.cfg.ClusterListen())
	}
}

// local is where this host reaches what listens on address.
func local(address string) (string, bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return "", false
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if err == nil && ip.Is6() {
			host = "localhost"
		}
	}
	return net.JoinHostPort(host, port), true
}

func (r *run) apiPort(i int, l config.Listener) {
	address, fixed := local(l.Address)
	if !fixed {
		r.ok("%s is a port that is chosen at the start", l.Address)
		return
	}
	scheme := "https://"
	if l.TLSDisable {
		scheme = "http://"
	}
	// Its certificate was looked at in its file; here it is only asked who is there.
	got, err := r.look(newAsker(scheme+address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, Certificates: r.ClientCerts}))
	if got != nil {
		if i == 0 {
			r.self = got
		}
		r.ok("%s is in use by Locum, which answers", l.Address)
		if locksKnown && r.cfg.Storage.Type == "raft" && r.dir.there && r.dir.pid == 0 && r.dir.usable {
			r.warn("end the node that should not run, or give this one another port", "the node that answers at %s does not use %s: it is another one", l.Address, r.dir.path)
		}
		return
	}
	r.bind(l.Address, err)
}

// bind takes a port for an instant. asked is what came of asking who is there.
func (r *run) bind(address string, asked error) {
	ln, err := net.Listen("tcp", address)
	if err == nil {
		_ = ln.Close()
		if r.dir.pid != 0 {
			r.fault("look at its log: it is starting, or stuck", "process %s has the data directory, and does not listen on %s", who(r.dir.pid), address)
			return
		}
		r.ok("%s is free", address)
		return
	}
	_, port, _ := net.SplitHostPort(address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && r.dir.pid != 0:
		what, _ := unreachable(asked, address)
		r.fault("look at its log; end it and start it again", "process %s runs and has %s, and does not answer as it should: %s", who(r.dir.pid), address, what)
	case errors.Is(err, syscall.EADDRINUSE):
		r.fault(fmt.Sprintf("see whose it is (ss -ltnp 'sport = :%s'), and end that, or write another port", port), "%s is in use by something else", address)
	case errors.Is(err, syscall.EACCES):
		r.fault("write a port above 1023, or give Locum CAP_NET_BIND_SERVICE", "this user may not listen on %s", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		r.fault("write an address of this host, or 0.0.0.0 for all", "%s is no address of this host", address)
	default:
		r.fault("correct the address", "%s cannot be listened on: %s", address, err)
	}
}

func who(pid int) string {
	if pid < 0 {
		return "(which is not known)"
	}
	return fmt.Sprint(pid)
}

// ownClusterPort is open while the node is unsealed.
func (r *run) ownClusterPort(listen string) {
	address, fixed := local(listen)
	switch {
	case !fixed:
		r.ok("%s is a port that is chosen at the start", listen)
	case r.self == nil:
		if r.dir.pid == 0 {
			r.bind(listen, nil)
		}
	case r.self.closed:
		r.skip("give a client certificate: LOCUM_CLIENT_CERT and LOCUM_CLIENT_KEY", "whether the cluster port should be open is not known")
	case r.self.Sealed || !*r.self.Initialized:
		r.ok("%s, the cluster port, opens when the node is unsealed", listen)
	default:
		if _, err := r.clusterPort(address); err != nil {
			what, do := portTrouble(err, listen)
			r.fault(do, "%s, this node's cluster port: %s", listen, what)
			return
		}
		r.ok("%s is this node's cluster port, and takes raft", listen)
	}
}

// node says what state this one is in, and whether it is reached where it says it is.
func (r *run) node() {
	switch s := r.self; {
	case s == nil:
		if r.dir.pid != 0 {
			r.fault("look at its log", "it runs (process %s), and its API does not answer", who(r.dir.pid))
		} else {
			r.warn("start it: locum server -config …", "it does not run")
		}
		return
	case s.closed:
		r.skip("give a client certificate: LOCUM_CLIENT_CERT and LOCUM_CLIENT_KEY", "it runs, and asks for a client certificate")
		return
	case !*s.Initialized:
		r.warn("if this is to be a new cluster: locum operator init, on one node. Else let it join: retry_join, or locum operator raft join", "it runs, and is in no cluster yet")
	case s.Removed:
		r.fault("if it shall come back: end it, empty its data directory, start it; it joins as a new node", "it was removed from its cluster")
	case s.Sealed:
		do := "locum operator unseal"
		if r.cfg.Seal.Type == "static" {
			do = "look at its log: with a static seal it opens by itself; locum operator unseal opens it if it was sealed on purpose"
		}
		r.fault(do, "it is sealed: it serves nothing")
	case s.code == 474:
		r.fault("see below what is wrong with the others; without a majority of the voters there is no active node", "it is unsealed, and reaches no active node")
	case s.Standby:
		r.ok("it is unsealed, and standby; active is %s", s.leader.Address)
	default:
		r.ok("it is unsealed, and active")
	}
	r.reached()
}

// reached asks this node by the addresses that it tells others.
func (r *run) reached() {
	api, err := r.look(newAsker(r.cfg.APIAddr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, Certificates: r.ClientCerts}))
	switch {
	case err != nil:
		what, do := unreachable(err, r.cfg.APIAddr)
		r.fault(do, "at api_addr, %s, it is not reached from here: %s", r.cfg.APIAddr, what)
	case !api.closed && api.ClusterID != r.self.ClusterID:
		r.fault("correct api_addr, or what stands in front", "at api_addr, %s, a node of another cluster answers", r.cfg.APIAddr)
	default:
		r.ok("it is reached at api_addr, %s", r.cfg.APIAddr)
	}
	if !r.cfg.HAEnabled() || r.self.Sealed || !*r.self.Initialized {
		return
	}
	address := hostPort(r.cfg.ClusterAddr)
	id, err := r.clusterPort(address)
	switch {
	case err != nil:
		what, do := portTrouble(err, address)
		r.fault(do, "at cluster_addr, %s, it is not reached from here: %s", r.cfg.ClusterAddr, what)
	case r.dir.id != "" && id != r.dir.id:
		r.fault("give each node a cluster_addr of its own, that leads to it alone", "at cluster_addr, %s, another node answers (%s)", r.cfg.ClusterAddr, id)
	default:
		r.ok("it is reached at cluster_addr, %s", r.cfg.ClusterAddr)
	}
}

// hostPort is what to dial for a URL, or for a host:port.
func hostPort(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		if u.Port() == "" {
			return net.JoinHostPort(u.Hostname(), "443")
		}
		return u.Host
	}
	return address
}
