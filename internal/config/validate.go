package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	stopTimeout = 10 * time.Second // that the application gets to stop
	takeover    = 10 * time.Second // that the next node gets to start
)

// Seals by what has become of them.
var (
	seals      = []string{"static", "shamir"}
	laterSeals = []string{"transit", "awskms", "gcpckms", "azurekeyvault", "pkcs11", "kmip"}
	nodeName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

// checker gathers the faults of one configuration.
type checker struct {
	*Config
	faults Faults
}

// fault notes what is wrong with the setting at path, and what to do.
func (c *checker) fault(path, what, fix string) {
	c.faults = append(c.faults, Fault{Where: c.where.of(path), What: path + ": " + what, Fix: fix})
}

// Validate reports everything that is wrong with a complete configuration, without looking at any file.
func (c *Config) Validate() error { return c.validate().err() }

func (c *Config) validate() Faults {
	check := &checker{Config: c}
	check.names()
	check.listeners()
	check.ports()
	if !c.Embedded {
		check.storage()
		check.seal()
	}
	check.ha()
	check.forwarding()
	check.rateLimit()
	check.applications()
	check.cache()
	if c.HAEnabled() || c.APIAddr != "" {
		check.apiAddr()
	}
	if c.HAEnabled() || c.ClusterAddr != "" {
		check.clusterAddr()
	}
	check.sameAddress()
	check.oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	check.oneOf("log_format", c.LogFormat, "text", "json")
	return check.faults
}

func (c *checker) names() {
	if !nodeName.MatchString(c.NodeName) {
		c.fault("node_name", fmt.Sprintf("%q is not a node name", c.NodeName),
			`write letters, digits, ".", "_" and "-", beginning with a letter or digit`)
	}
	if c.ClusterName == "" {
		c.fault("cluster_name", "empty", "write a name, or remove the line")
	}
}

func (c *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.fault(path, fmt.Sprintf("%q is not known", value), "write "+either(allowed))
	}
}

// either lists the choices: "a", "b" or "c".
func either(all []string) string {
	quoted := make([]string, len(all))
	for i, one := range all {
		quoted[i] = `"` + one + `"`
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// ports finds two uses of one port.
func (c *checker) ports() {
	type use struct {
		path, host string
		port       uint16
	}
	var uses []use
	add := func(path, address string) {
		host, port, err := splitAddress(address)
		if err != nil || port == 0 {
			return
		}
		for _, u := range uses {
			anywhere := u.host == "" || host == "" || unspecified(u.host) || unspecified(host)
			if u.port == port && (anywhere || u.host == host) {
				c.fault(path, fmt.Sprintf("port %d is used by %s too", port, u.path), "give one of them another port")
				return
			}
		}
		uses = append(uses, use{path, host, port})
	}
	for i, l := range c.Listeners {
		if !l.Unix() {
			add(fmt.Sprintf("listener[%d].address", i), l.Address)
		}
	}
	for i, l := range c.Listeners {
		if l.ClusterAddress != "" {
			add(fmt.Sprintf("listener[%d].cluster_address", i), l.ClusterAddress)
		}
	}
	if c.Cache.On {
		add("cache.resp_address", c.Cache.RESPAddress)
	}
	for i, a := range c.Applications {
		for _, address := range a.Listen {
			add(fmt.Sprintf("application[%d].listen", i), address)
		}
	}
}

func (c *checker) storage() {
	c.storageBlocks()
	switch c.Storage.Type {
	case "raft":
		c.raft(c.Storage.Raft)
	case "file":
		if c.Storage.File.Path == "" {
			c.fault("storage.path", "missing", "write the data directory")
		}
	}
	c.shared("storage", c.Storage)
	c.shared("ha_storage", c.HAStorage)
	c.registration()
}

// shared checks the block of a store that may stand in either place.
func (c *checker) shared(path string, s Storage) {
	switch s.Type {
	case "consul":
		c.consul(path, s.Consul)
	case "etcd":
		c.etcd(path, s.Etcd)
	case "zookeeper":
		c.zooKeeper(path, s.ZooKeeper)
	case "s3":
		c.s3(path, s.S3)
	case "dynamodb":
		c.dynamoDB(path, s.DynamoDB)
	case "kubernetes":
		c.kubernetes(path, s.Kubernetes)
	case "postgresql":
		c.postgreSQL(path, s.PostgreSQL)
	case "mysql":
		c.mySQL(path, s.MySQL)
	case "redis":
		c.redis(path, s.Redis)
	case "nats":
		c.nats(path, s.NATS)
	}
}

// kind checks the label of a block. missing is what to do where there is no block.
func (c *checker) kind(path, label string, known, later []string, missing string) {
	switch {
	case slices.Contains(known, label):
	case label == "":
		c.fault(path, "missing", missing)
	case slices.Contains(later, label) && len(known) == 0:
		c.fault(path, fmt.Sprintf("%q: not in this version of Locum", label), "remove the block")
	case slices.Contains(later, label):
		c.fault(path, fmt.Sprintf("%q: not in this version of Locum", label), "write "+either(known))
	case len(known) == 0:
		c.fault(path, fmt.Sprintf("%q is not known", label), "remove the block")
	default:
		c.fault(path, fmt.Sprintf("%q is not known", label), "write "+either(known))
	}
}

func (c *checker) raft(r RaftStorage) {
	if r.Path == "" {
		c.fault("storage.path", "missing", `write the data directory, such as path = "/var/lib/locum"`)
	}
	if r.Performance < 0.1 || r.Performance > 100 {
		c.fault("storage.performance", fmt.Sprintf("%s is out of range", r.Performance), `write "lan", "wan", or a number between 0.1 and 100`)
	}
	if r.SnapshotSize < 1<<20 {
		c.fault("storage.snapshot_size", fmt.Sprintf("%s is too small", r.SnapshotSize), `write at least "1MiB"`)
	}
	if r.DeadPeerTimeout != 0 && r.DeadPeerTimeout < time.Minute {
		c.fault("storage.dead_peer_timeout", fmt.Sprintf("%s is too short: a restart must not cost a seat", r.DeadPeerTimeout), `write at least "1m", or "0" for never`)
	}
	for i, j := range r.RetryJoin {
		path := fmt.Sprintf("storage.retry_join[%d]", i)
		if j.LeaderAPIAddr == "" {
			c.fault(path+".leader_api_addr", "missing", `write leader_api_addr = "https://b.example.com:8400"`)
		} else if err := checkURL(j.LeaderAPIAddr, "http", "https"); err != nil {
			c.fault(path+".leader_api_addr", err.Error(), `write it such as "https://b.example.com:8400"`)
		}
		if j.LeaderCACert != "" && j.LeaderCACertFile != "" {
			c.fault(path+".leader_ca_cert", "given as text and as a file", "keep one")
		}
		if (j.LeaderClientCertFile == "") != (j.LeaderClientKeyFile == "") {
			c.fault(path, "leader_client_cert_file and leader_client_key_file go together", "set both or none")
		}
	}
}

func (c *checker) seal() {
	c.kind("seal", c.Seal.Type, seals, laterSeals, `write seal "static" { key_file = "…" }, or remove the block for "shamir"`)
	if s := c.Seal.Static; c.Seal.Type == "static" && (s.KeyFile == "") == (s.KeyEnv == "") {
		c.fault("seal", "a static seal needs one of key_file and key_env", `write key_file = "/etc/locum/seal.key"`)
	}
}

func (c *checker) ha() {
	if c.HA.LockTTL != 0 && c.Storage.Type == "raft" {
		c.fault("ha.lock_ttl", "raft storage takes none: its times follow from performance", "remove the line")
	}
	if c.HA.Priority < 0 || c.HA.Priority > 1000 {
		c.fault("ha.priority", fmt.Sprintf("%d is out of range", c.HA.Priority), "write a number from 0 to 1000")
	}
	if c.HA.MinFailoverInterval < 0 || c.HA.MinFailoverInterval > 24*time.Hour {
		c.fault("ha.min_failover_interval", fmt.Sprintf("%s is out of range", c.HA.MinFailoverInterval), `write a time from "0s" to "24h"`)
	}
	if need := c.HA.DrainTimeout + c.longestStop() + takeover; c.Forwarding.HoldTimeout < need {
		path := "forwarding.hold_timeout"
		if c.where["forwarding.hold_timeout"] == "" {
			path = "ha.drain_timeout"
		}
		c.fault(path, fmt.Sprintf("hold_timeout is %s, less than drain_timeout (%s) + %s: requests would fail in a planned step-down",
			c.Forwarding.HoldTimeout, c.HA.DrainTimeout, c.longestStop()+takeover), fmt.Sprintf("write hold_timeout = %q or more, or a shorter drain_timeout", need))
		return
	}
	if most := c.HA.DrainTimeout + c.longestHooks() + takeover; c.Forwarding.HoldTimeout < most {
		c.warn("forwarding.hold_timeout is %s: should every on_standby take its whole hook_timeout, a planned step-down takes %s, and requests fail; "+
			"write hold_timeout = %q, or a shorter hook_timeout", c.Forwarding.HoldTimeout, most, most)
	}
}

func (c *checker) forwarding() {
	c.oneOf("forwarding.mode", c.Forwarding.Mode, "forward", "redirect")
	if c.Forwarding.HoldMaxRequests < 0 {
		c.fault("forwarding.hold_max_requests", "negative", "write 0 to hold none")
	}
	if c.Forwarding.RetryBuffer > c.Forwarding.HoldMaxBytes {
		c.fault("forwarding.retry_buffer", fmt.Sprintf("%s is more than hold_max_bytes (%s)", c.Forwarding.RetryBuffer, c.Forwarding.HoldMaxBytes),
			"write a smaller one")
	}
}

// checkURL wants a scheme and a host, and nothing behind the path.
func checkURL(text string, schemes ...string) error {
	u, err := url.Parse(text)
	switch {
	case !strings.Contains(text, "://"):
		return fmt.Errorf("%q has no scheme", text)
	case err != nil || u.Hostname() == "":
		return fmt.Errorf("%q is not a URL", text)
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Errorf("scheme %q does not fit", u.Scheme)
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q has a query or fragment", text)
	case u.User != nil:
		return errors.New("the URL has a user name or password") // not quoted: it may be a secret
	case u.Port() != "":
		_, _, err := splitAddress(net.JoinHostPort(u.Hostname(), u.Port()))
		return err
	case strings.HasSuffix(u.Host, ":"):
		return fmt.Errorf("%q has an empty port", text)
	}
	return nil
}

func (c *checker) apiAddr() {
	if c.APIAddr == "" {
		if c.primary() != nil {
			c.fault("api_addr", "not given, and this host has no private address", `write api_addr = "https://a.example.com:8400": where clients reach this node`)
		}
		return
	}
	if err := checkURL(c.APIAddr, "http", "https"); err != nil {
		c.fault("api_addr", err.Error(), `write it such as "https://a.example.com:8400"`)
		return
	}
	c.advertised("api_addr", c.APIAddr, "clients")
}

func (c *checker) clusterAddr() {
	if c.ClusterAddr == "" {
		if c.primary() != nil && c.APIAddr != "" {
			c.fault("cluster_addr", "not given, and this host has no private address", `write cluster_addr = "https://a.example.com:8401": where other nodes reach this one`)
		}
		return
	}
	const fix = `write it such as "https://a.example.com:8401"`
	if err := checkURL(c.ClusterAddr, "https"); err != nil {
		c.fault("cluster_addr", err.Error(), fix)
		return
	}
	u, _ := url.Parse(c.ClusterAddr) // checkURL has parsed it
	if u.Path != "" || u.Port() == "" {
		c.fault("cluster_addr", fmt.Sprintf("%q is not https://host:port", c.ClusterAddr), fix)
		return
	}
	c.advertised("cluster_addr", c.ClusterAddr, "the other nodes")
}

// advertised looks at an address that others are told: it must mean the same to them.
func (c *checker) advertised(path, addr, whom string) {
	u, err := url.Parse(addr)
	if err != nil {
		return
	}
	host := u.Hostname()
	switch {
	case unspecified(host):
		c.fault(path, fmt.Sprintf("nobody can connect to %s", host), "write the name or address under which "+whom+" reach this node")
	case loopback(host) && c.HAEnabled() && c.elsewhere() != "":
		c.fault(path, fmt.Sprintf("%s means this host only, and %s is another one", host, c.elsewhere()),
			"write the name or address under which "+whom+" reach this node")
	case loopback(host) && c.HAEnabled() && !c.allLoopback():
		c.warn("%s is %s: on other hosts that means the host itself, so %s there cannot reach this node", path, addr, whom)
	}
}

// elsewhere names a node on another host that the configuration mentions.
func (c *checker) elsewhere() string {
	for _, j := range c.Storage.Raft.RetryJoin {
		if u, err := url.Parse(j.LeaderAPIAddr); err == nil && u.Hostname() != "" && !loopback(u.Hostname()) {
			return u.Hostname()
		}
	}
	return ""
}

// allLoopback reports whether this node can be reached from its own host only.
func (c *checker) allLoopback() bool {
	for _, l := range c.Listeners {
		if l.Unix() {
			continue
		}
		for _, address := range []string{l.Address, l.ClusterAddress} {
			if host, _, err := splitAddress(address); err == nil && !loopback(host) {
				return false
			}
		}
	}
	return true
}

func (c *checker) sameAddress() {
	api, err := url.Parse(c.APIAddr)
	if err != nil || api.Port() == "" || api.Port() == "0" {
		return
	}
	if cluster, err := url.Parse(c.ClusterAddr); err == nil && cluster.Host == api.Host {
		c.fault("cluster_addr", fmt.Sprintf("%s is api_addr's too", cluster.Host), "give one of them another port")
	}
}
