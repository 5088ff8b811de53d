package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
)

// HostAddress asks the agent for the address that it advertises to the other agents. near reports whether the agent is
// reached over the loopback interface or a socket, and so is this host's.
func HostAddress(ctx context.Context, config Config) (address netip.Addr, near bool, err error) {
	config.ensureDefaults()
	if err := config.Validate(); err != nil {
		return netip.Addr{}, false, err
	}
	a, err := newAPI(config)
	if err != nil {
		return netip.Addr{}, false, err
	}
	defer a.close()
	got, err := a.do(ctx, http.MethodGet, "/v1/agent/self", nil, nil)
	if err != nil {
		return netip.Addr{}, false, failure(ctx, err, false)
	}
	if got.status != http.StatusOK {
		return netip.Addr{}, false, refusal(got, false)
	}
	var self struct{ Member struct{ Addr string } }
	if err := json.Unmarshal(got.body, &self); err != nil {
		return netip.Addr{}, false, fmt.Errorf("consul: what the agent says of itself: %w", err)
	}
	if address, err = netip.ParseAddr(self.Member.Addr); err != nil {
		return netip.Addr{}, false, fmt.Errorf("consul: the agent advertises %q: %w", self.Member.Addr, err)
	}
	return address.Unmap(), isNear(config.Address), nil
}

func isNear(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "unix" || u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}
