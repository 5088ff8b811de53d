package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Network is a set of network namespaces on one bridge, with this program outside of them as Client. Links
// are cut one way: packets leave and arrive nowhere, as when a cable or a firewall fails, and no side is told.
//
// A cut sets, where the packets start, a neighbour entry for their target that no card has: the bridge floods
// the frame and everyone drops it. This needs nothing of the kernel but bridges, and takes effect at once on
// connections that are open.
type Network struct {
	id    string // part of the names of namespaces and devices: this process, and which of its networks
	net   byte   // of 198.18.net.0/24: RFC 2544's addresses for tests
	nodes int

	mu   sync.Mutex
	cuts map[[2]int]bool // from, to
}

// Client is the index of this program in Cut and Heal.
const Client = -1

var made atomic.Int32 // networks that this process has made

const nowhere = "02:00:00:00:00:01" // a MAC address that no card has

// NetworkUnavailable says why NewNetwork cannot work here, or "".
func NetworkUnavailable() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "network namespaces need iproute2"
	}
	return ""
}

// NewNetwork makes namespaces for so many nodes. Close removes them.
func NewNetwork(nodes int) (*Network, error) {
	sweep()
	var r [1]byte
	_, _ = rand.Read(r[:])
	id := fmt.Sprintf("%d-%d", os.Getpid(), made.Add(1))
	w := &Network{id: id, net: r[0], nodes: nodes, cuts: make(map[[2]int]bool)}
	if err := w.make(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Network) make() error {
	steps := [][]string{
		{"netns", "add", w.hub()},
		{"-n", w.hub(), "link", "add", "br0", "type", "bridge"},
		{"-n", w.hub(), "link", "set", "br0", "up"},
	}
	for i := Client; i < w.nodes; i++ {
		port := fmt.Sprintf("p%d", i+1)
		steps = append(steps, []string{"link", "add", w.device(i), "type", "veth", "peer", "name", port, "netns", w.hub()},
			[]string{"-n", w.hub(), "link", "set", port, "master", "br0", "up"})
		if i != Client {
			steps = append(steps, []string{"netns", "add", w.space(i)},
				[]string{"link", "set", w.device(i), "netns", w.space(i)},
				[]string{"-n", w.space(i), "link", "set", "lo", "up"})
		}
		steps = append(steps,
			append(w.in(i), "addr", "add", w.IP(i)+"/24", "dev", w.device(i)),
			append(w.in(i), "link", "set", w.device(i), "up"))
	}
	for _, args := range steps {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

func (w *Network) hub() string         { return "locum-" + w.id + "-hub" }
func (w *Network) space(i int) string  { return fmt.Sprintf("locum-%s-%d", w.id, i+1) }
func (w *Network) device(i int) string { return fmt.Sprintf("l%s-%d", w.id, i+1) }

// in is the start of an ip command inside of a namespace.
func (w *Network) in(i int) []string {
	if i == Client {
		return nil
	}
	return []string{"-n", w.space(i)}
}

func (w *Network) exec(i int) []string { return []string{"ip", "netns", "exec", w.space(i)} }

// IP is the address of a node, or of Client.
func (w *Network) IP(i int) string { return fmt.Sprintf("198.18.%d.%d", w.net, i+10) }

// Cut drops every packet from one node to the other from now on; those the other way still pass.
func (w *Network) Cut(from, to int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[[2]int{from, to}] = true
	return ip(append(w.in(from), "neigh", "replace", w.IP(to), "lladdr", nowhere, "nud", "permanent", "dev", w.device(from))...)
}

// Heal ends a Cut, if there is one.
func (w *Network) Heal(from, to int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cuts[[2]int{from, to}] {
		return nil
	}
	delete(w.cuts, [2]int{from, to})
	return ip(append(w.in(from), "neigh", "del", w.IP(to), "dev", w.device(from))...)
}

// Part cuts both ways between two nodes.
func (w *Network) Part(a, b int) error { return errors.Join(w.Cut(a, b), w.Cut(b, a)) }

// Isolate parts a node from all other nodes; Client still reaches it.
func (w *Network) Isolate(node int) error {
	var errs []error
	for i := range w.nodes {
		if i != node {
			errs = append(errs, w.Part(i, node))
		}
	}
	return errors.Join(errs...)
}

// HealAll ends every Cut.
func (w *Network) HealAll() error {
	w.mu.Lock()
	cuts := slices.Collect(maps.Keys(w.cuts))
	w.mu.Unlock()
	var errs []error
	for _, cut := range cuts {
		errs = append(errs, w.Heal(cut[0], cut[1]))
	}
	return errors.Join(errs...)
}

// Close removes the namespaces and with them every device. Processes in them must have ended.
func (w *Network) Close() error {
	_ = ip("link", "del", w.device(Client))
	var errs []error
	for i := range w.nodes {
		errs = append(errs, removeSpace(w.space(i)))
	}
	return errors.Join(append(errs, removeSpace(w.hub()))...)
}

// sweep removes what test processes that were killed have left.
func sweep() {
	spaces, _ := filepath.Glob("/run/netns/locum-*")
	for _, space := range spaces {
		name := filepath.Base(space)
		parts := strings.Split(name, "-")
		if _, err := os.Stat("/proc/" + parts[1]); err != nil {
			_ = removeSpace(name)
		}
	}
}

func removeSpace(name string) error {
	if _, err := os.Stat("/run/netns/" + name); err != nil {
		return nil
	}
	return ip("netns", "del", name)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// NetworkFor makes a network for a test. Where none can be made the test is skipped with the reason, or,
// with LOCUM_NO_SKIP set as in CI, fails, unless LOCUM_NO_NETWORKS says that the machine lets nobody make one.
func NetworkFor(t testing.TB, nodes int) *Network {
	t.Helper()
	why := NetworkUnavailable()
	var w *Network
	if why == "" {
		var err error
		if w, err = NewNetwork(nodes); err != nil { // root without the capability, as in many containers
			why = "no network namespaces: " + err.Error()
		}
	}
	switch {
	case why != "" && os.Getenv("LOCUM_NO_SKIP") != "" && os.Getenv("LOCUM_NO_NETWORKS") == "":
		t.Fatalf("this must run here: %s", why)
	case why != "":
		t.Skip(why)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("removing the network: %v", err)
		}
	})
	return w
}
