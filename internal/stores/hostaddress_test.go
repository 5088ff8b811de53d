package stores_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/stores"
	"github.com/locum-ha/locum/internal/storeserver"
)

// interfaces.md §2: "Where none is given, a data store that knows this host's address is asked, then the first private
// address is used, and the start-up table says which and why". The agent is a real one; what it advertises is not the
// first private address.
//
// An agent that is not known to be this host's is believed only where it names an address of this host. 0.0.0.0 stands for such an
// agent: nothing tells that it is near, and yet it is dialled here (package net: "the local system is assumed").
func TestAddressFromConsulAgent(t *testing.T) {
	server := storeserver.StartConsul(t, map[string]any{"advertise_addr": "192.0.2.17"})
	load := func(listener, consul string, own ...netip.Addr) *config.Config {
		t.Helper()
		c, err := config.Parse("test.hcl", []byte(`
			node_name = "a"
			listener "tcp" {
			  address     = "`+listener+`"
			  tls_disable = true
			}
			storage "consul" { address = "`+consul+`" }
		`))
		if err != nil {
			t.Fatal(err)
		}
		source := config.Source{
			LookupEnv: func(string) (string, bool) { return "", false }, StoreAddress: stores.HostAddress,
			Addresses: func() ([]netip.Addr, error) {
				return append([]netip.Addr{netip.MustParseAddr("10.1.2.3")}, own...), nil
			},
		}
		if err := c.Complete(source); err != nil {
			t.Fatal(err)
		}
		return c
	}
	elsewhere := strings.Replace(server.Addr, "127.0.0.1", "0.0.0.0", 1)
	advertised := netip.MustParseAddr("192.0.2.17")
	for name, want := range map[string]struct {
		listener, consul, addr, from string
		own                          []netip.Addr
	}{
		"asked":               {"0.0.0.0:8400", server.Addr, "http://192.0.2.17:8400", "Consul agent", nil},
		"a listener's own":    {"10.1.2.3:8400", server.Addr, "http://10.1.2.3:8400", "listener", nil},
		"no agent":            {"0.0.0.0:8400", "127.0.0.1:1", "http://10.1.2.3:8400", "first private address", nil},
		"no answer in itself": {"0.0.0.0:8400", "http://127.0.0.1:1/x", "http://10.1.2.3:8400", "first private address", nil},
		"another host's":      {"0.0.0.0:8400", elsewhere, "http://10.1.2.3:8400", "first private address", nil},
		"this host's by its address": {
			"0.0.0.0:8400", elsewhere, "http://192.0.2.17:8400", "Consul agent", []netip.Addr{netip.AddrFrom16(advertised.As16())},
		},
	} {
		c := load(want.listener, want.consul, want.own...)
		if c.APIAddr != want.addr || !strings.Contains(c.APIAddrFrom, want.from) {
			t.Errorf("%s: api_addr is %s, from %s; want %s, from %s", name, c.APIAddr, c.APIAddrFrom, want.addr, want.from)
		}
		if !strings.HasPrefix(c.ClusterAddr, strings.Replace(strings.TrimSuffix(want.addr, ":8400"), "http:", "https:", 1)) {
			t.Errorf("%s: cluster_addr is %s", name, c.ClusterAddr)
		}
	}
}
