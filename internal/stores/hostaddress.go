package stores

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical/consul"
)

// askTime bounds how long a store is asked for this host's address: there are other ways to find one.
const askTime = 2 * time.Second

// HostAddress asks a data store of the configuration for this host's address: an agent of Consul's. What an agent says
// that runs elsewhere is believed only if the address is one of own.
func HostAddress(c *config.Config, own []netip.Addr) (host, from string, ok bool) {
	for _, s := range []config.Storage{c.HAStorage, c.Storage} {
		if s.Type != "consul" {
			continue
		}
		settings, err := consulConfig(s.Consul)
		if err != nil {
			continue // opening the store says so
		}
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		address, near, err := consul.HostAddress(ctx, settings)
		cancel()
		if err != nil || address.IsLoopback() || address.IsUnspecified() {
			continue
		}
		if near || slices.ContainsFunc(own, func(a netip.Addr) bool { return a.Unmap() == address }) {
			return address.String(), "the Consul agent of this host", true
		}
	}
	return "", "", false
}
