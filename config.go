package locum

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/listener"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// Storage is a data store that Locum keeps its state in: the Config of a package below physical/, such as
// raft.Config{Path: "/var/lib/app"}. A program links the stores that it names, and no others.
type Storage = physical.Opener

// Key is the key that seals everything that Locum stores; all nodes of a cluster have the same. It prints "***".
type Key = seal.Key

// Secret is text that nobody may read by accident. It prints "***"; Reveal gives it.
type Secret = physical.Secret

// NewKey makes a random key, once for the life of a cluster.
func NewKey() Key { return seal.NewKey() }

// ReadKeyFile reads a key from a file: 32 raw bytes, 64 hexadecimal digits, or base64.
func ReadKeyFile(path string) (Key, error) { return seal.ReadKeyFile(path) }

// ReadKeyEnv reads a key from the environment, in hexadecimal digits or base64, and removes it from there.
func ReadKeyEnv(name string) (Key, error) {
	k, err := seal.ReadKeyEnv(name)
	if err != nil {
		return k, err
	}
	return k, os.Unsetenv(name)
}

// Config is everything that a node is told. Storage and Key are required; a cluster needs addresses besides.
type Config struct {
	// Storage keeps the entries and, unless LockStorage is given, the HA lock. Required.
	Storage Storage

	// LockStorage keeps the HA lock in another store. It must be the same on all nodes for the life of the cluster. Raft
	// takes none.
	LockStorage Storage

	// Key seals what is stored, and proves to the others that this node belongs to them. Required; the same on all nodes.
	Key Key

	// Join are API addresses (http:// or https://) of other nodes, through which a new node joins the cluster; its own is
	// passed over. For storage that runs in the nodes themselves (raft). The node for which nothing is left begins the cluster; it is
	// the only one that may have no others in its list, and only at its very first start.
	Join []string

	// NodeName names this node; unique in its cluster. Default: the host name.
	NodeName string

	// ClusterName names the cluster, for people and metrics. Default: "locum".
	ClusterName string

	// APIListen is the host:port that Locum's own API listens on: status, metrics, and where new nodes join.
	// Default: "127.0.0.1:8400".
	APIListen string

	// ClusterListen is the host:port of the port between the nodes. Default: APIListen's host, its port + 1.
	ClusterListen string

	// APIAddr is the URL where the others reach APIListen. Default: APIListen's address, or this host's first private one.
	APIAddr string

	// ClusterAddr is the URL, https://host:port, where the others reach ClusterListen. Default: as APIAddr.
	ClusterAddr string

	// CertFile and KeyFile are PEM files with a certificate and its key: APIListen and what Serve opens then speak TLS.
	// Without them these ports are plain HTTP; the port between the nodes is encrypted either way.
	CertFile, KeyFile string

	// TrustedProxies are addresses or ranges whose X-Forwarded-* headers are believed. Default: none.
	TrustedProxies []string

	// RepeatMethods are the methods of which a request may be given to a handler a second time although the first active node
	// that had it died, such as "PUT", where the handlers make that harmless. Safe methods always may. Default: none.
	RepeatMethods []string

	// Priority orders the candidates, 1 to 1000: of the nodes that could take over, a higher one does. Default, of 0 too: 100.
	Priority int

	// Witness keeps this node from ever being active: it votes, and forwards.
	Witness bool

	// LockTTL is how long the lock outlives a node that is gone. Default: the store's. Raft takes none.
	LockTTL time.Duration

	// DrainTimeout is how long requests in flight and work may take to end in a step-down. Default: 15 s.
	DrainTimeout time.Duration

	// HoldTimeout is how long a request waits for an active node before it is answered 503. Default: 40 s.
	HoldTimeout time.Duration

	// ShutdownDelay is how long a node goes on forwarding before it closes its ports at the end, so that load balancers
	// notice. Default: 0.
	ShutdownDelay time.Duration

	// Version is the program's, shown to operators.
	Version string

	// Founded is called on the node that begins the cluster, once, with the root token of Locum's own API. Nobody needs
	// it for the program to work; with it, operators can use the locum command.
	Founded func(root Secret)

	// Logger takes Locum's log. Default: slog.Default.
	Logger *slog.Logger
}

// complete checks c and makes of it what a node is run with. All faults are reported at once.
func (c *Config) complete() (*config.Config, error) {
	var faults []error
	fault := func(field, what string) { faults = append(faults, fmt.Errorf("locum: Config.%s: %s", field, what)) }
	n := config.Default()
	n.Embedded = true
	if c.Storage == nil {
		fault("Storage", "missing: name a data store, such as raft.Config{Path: \"/var/lib/app\"}")
	} else {
		n.Storage = config.NewStorage(c.Storage.Kind())
	}
	if c.LockStorage != nil {
		n.HAStorage = config.NewStorage(c.LockStorage.Kind())
		if n.Storage.Type == "raft" {
			fault("LockStorage", "raft keeps its own lock: leave it out")
		}
	}
	if c.Key == (Key{}) {
		fault("Key", "missing: make one with NewKey, keep it where only the nodes can read it, and give it to all of them")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		fault("CertFile", "goes together with KeyFile: set both or none")
	}
	if len(c.Join) > 0 && c.Storage != nil && c.Storage.Kind() != "raft" {
		fault("Join", fmt.Sprintf("with %q the nodes find each other in the data store: leave it out", c.Storage.Kind()))
	}
	for _, addr := range c.Join {
		if u, err := url.Parse(addr); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			fault("Join", fmt.Sprintf("%q is not the URL of a node's API: write it such as \"http://10.0.0.2:8400\"", addr))
		}
		n.Storage.Raft.RetryJoin = append(n.Storage.Raft.RetryJoin, config.RetryJoin{LeaderAPIAddr: addr})
	}
	c.settings(n)
	if err := n.Complete(config.Source{LookupEnv: func(string) (string, bool) { return "", false }}); err != nil {
		var many config.Faults
		if !errors.As(err, &many) {
			return nil, errors.Join(append(faults, err)...)
		}
		for _, f := range many {
			faults = append(faults, fmt.Errorf("locum: Config.%s: %s", fieldNames.Replace(f.What), f.Fix))
		}
	}
	return n, errors.Join(faults...)
}

// settings copies what has a setting in the configuration file, too.
func (c *Config) settings(n *config.Config) {
	set(&n.ClusterName, c.ClusterName)
	set(&n.NodeName, c.NodeName)
	set(&n.APIAddr, c.APIAddr)
	set(&n.ClusterAddr, c.ClusterAddr)
	l := config.NewListener("tcp")
	l.Address, l.ClusterAddress = c.APIListen, c.ClusterListen
	l.TLSDisable = c.CertFile == "" || c.KeyFile == ""
	if !l.TLSDisable {
		l.TLSCertFile, l.TLSKeyFile = c.CertFile, c.KeyFile
	}
	l.XForwardedForAuthorizedAddrs = c.TrustedProxies
	n.Listeners = []config.Listener{l}
	n.Seal.Type = seal.TypeStatic
	set(&n.HA.Priority, c.Priority)
	n.HA.Candidate = !c.Witness
	n.HA.LockTTL, n.HA.ShutdownDelay = c.LockTTL, c.ShutdownDelay
	set(&n.HA.DrainTimeout, c.DrainTimeout)
	set(&n.Forwarding.HoldTimeout, c.HoldTimeout)
	n.Telemetry.UnauthenticatedMetricsAccess = true
}

func set[T comparable](into *T, value T) {
	var zero T
	if value != zero {
		*into = value
	}
}

// fieldNames are the fields of Config by their names in a configuration file.
var fieldNames = strings.NewReplacer(
	"node_name", "NodeName", "cluster_name", "ClusterName", "api_addr", "APIAddr", "cluster_addr:", "ClusterAddr:",
	"listener[0].address", "APIListen", "listener[0].cluster_address", "ClusterListen",
	"listener[0].tls_cert_file", "CertFile", "listener[0].tls_key_file", "KeyFile",
	"listener[0].x_forwarded_for_authorized_addrs", "TrustedProxies",
	"ha.lock_ttl", "LockTTL", "ha.priority", "Priority", "ha.drain_timeout", "DrainTimeout", "forwarding.hold_timeout", "HoldTimeout",
)

// newListener makes the port that Serve asked for.
func (n *Node) newListener(addr string, index int) (*listener.Listener, error) {
	l := n.cfg.Listeners[0]
	c := listener.Config{
		Network: "tcp", Address: addr, Handler: n.server.ProgramHandler(index), Logger: n.log.With("part", "listener"),
		ReadHeaderTimeout: l.HTTPReadHeaderTimeout, IdleTimeout: l.HTTPIdleTimeout, MinBodyRate: int64(l.HTTPMinBodyRate), MaxHeaderBytes: int(l.MaxHeaderBytes),
	}
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		c.Network, c.Address, c.Socket.Mode = "unix", path, 0o600
	}
	if !l.TLSDisable {
		c.TLS = &listener.TLS{CertFile: l.TLSCertFile, KeyFile: l.TLSKeyFile, MinVersion: l.MinTLS()}
	}
	c.Forwarders.Prefixes, c.Forwarders.Local = l.AuthorizedProxies()
	return listener.New(c)
}
