package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeConfig writes the node's configuration and the seal key that all nodes share.
func (c *Cluster) writeConfig(n *Node, key string) error {
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return err
	}
	keyFile := filepath.Join(n.Dir, "seal.key")
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		return err
	}
	var b strings.Builder
	advertise := n.ClusterAddress()
	if c.options.Advertise != nil {
		advertise = c.options.Advertise(n)
	}
	fmt.Fprintf(&b, "cluster_name = %q\nnode_name = %q\napi_addr = %q\ncluster_addr = %q\n",
		"test", n.Name, n.URL(), "https://"+advertise)
	fmt.Fprintf(&b, "listener \"tcp\" {\n  address = %q\n  cluster_address = %q\n  tls_disable = true\n}\n",
		n.Address(), n.ClusterAddress())
	if c.options.Storage != nil {
		b.WriteString(c.options.Storage(n))
	} else {
		c.raft(&b, n)
	}
	fmt.Fprintf(&b, "seal \"static\" {\n  key_file = %q\n}\n", keyFile)
	b.WriteString("telemetry {\n  unauthenticated_metrics_access = true\n}\n")
	if c.options.LogLevel != "" {
		fmt.Fprintf(&b, "log_level = %q\n", c.options.LogLevel)
	}
	if c.options.Extra != nil {
		b.WriteString(c.options.Extra(n))
	}
	return os.WriteFile(filepath.Join(n.Dir, "locum.hcl"), []byte(b.String()), 0o644)
}

// raft writes the block of the embedded store.
func (c *Cluster) raft(b *strings.Builder, n *Node) {
	fmt.Fprintf(b, "storage \"raft\" {\n  path = %q\n", n.DataDir())
	if c.options.Performance != "" {
		fmt.Fprintf(b, "  performance = %q\n", c.options.Performance)
	}
	for _, other := range c.Nodes {
		if other != n {
			fmt.Fprintf(b, "  retry_join {\n    leader_api_addr = %q\n  }\n", other.URL())
		}
	}
	b.WriteString("}\n")
}
