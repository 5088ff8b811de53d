package diagnose

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/locum-ha/locum/internal/config"
)

// names resolves every name that the configuration tells others, or that this node must reach.
func (r *run) names() {
	own := ownAddresses()
	ours := func(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(own, a) }
	for _, n := range []struct{ setting, address string }{{"api_addr", r.cfg.APIAddr}, {"cluster_addr", r.cfg.ClusterAddr}} {
		found, host := r.resolve(n.setting, n.address)
		switch {
		case len(found) == 0:
		case host == found[0].String() && slices.ContainsFunc(found, ours):
			r.ok("%s: %s is an address of this host", n.setting, host)
		case host != "localhost" && r.hasOthers() && !slices.ContainsFunc(found, func(a netip.Addr) bool { return !a.IsLoopback() }):
			r.warn("let the name lead to this host's address in the network, in DNS and in /etc/hosts", "%s: %s is %s here: nodes that see the same would talk to themselves", n.setting, host, listed(found))
		case slices.ContainsFunc(found, ours):
			r.ok("%s: %s is %s, an address of this host", n.setting, host, listed(found))
		default:
			r.warn("if nothing in front of this node has that address, correct the name or the setting", "%s: %s is %s, which is no address of this host", n.setting, host, listed(found))
		}
	}
	for _, j := range r.cfg.Storage.Raft.RetryJoin {
		if found, host := r.resolve("retry_join", j.LeaderAPIAddr); len(found) > 0 {
			r.ok("retry_join: %s is %s", host, listed(found))
		}
	}
}

// hasOthers reports whether this node is to be one of several, on several hosts.
func (r *run) hasOthers() bool {
	return slices.ContainsFunc(r.cfg.Storage.Raft.RetryJoin, func(j config.RetryJoin) bool {
		u, err := url.Parse(j.LeaderAPIAddr)
		if err != nil {
			return false
		}
		ip, err := netip.ParseAddr(u.Hostname())
		return u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback())
	})
}

// resolve finds the addresses of a URL's host; none, and a finding, where there are none. An address is itself.
func (r *run) resolve(setting, address string) ([]netip.Addr, string) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return nil, "" // the configuration's check has told
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, host
	}
	ctx, cancel := r.within()
	defer cancel()
	found, err := r.Lookup(ctx, host)
	for i := range found {
		found[i] = found[i].Unmap()
	}
	if err != nil || len(found) == 0 {
		r.fault("correct the name, or let DNS or /etc/hosts know it on every node", "%s: the name %s leads nowhere: %s", setting, host, lookupTrouble(ctx, err))
		return nil, host
	}
	return found, host
}

func lookupTrouble(ctx context.Context, err error) string {
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx).Error()
	case errors.As(err, &dns):
		return dns.Err
	case err != nil:
		return err.Error()
	}
	return "it has no address"
}

func listed(addresses []netip.Addr) string {
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.String()
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), ", ")
}

func ownAddresses() []netip.Addr {
	var own []netip.Addr
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own
}
