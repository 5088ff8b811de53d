package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/locum-ha/locum/physical"
)

// ConsulStorage is Consul's key-value store, reached through an agent. See docs/stores/consul.md.
type ConsulStorage struct {
	// Address is the agent's HTTP API: "host:port", a URL with http:// or https://, or unix:// with the path of a socket. The
	// agent of this host is best. Default: CONSUL_HTTP_ADDR of the environment, else "127.0.0.1:8500".
	Address string `hcl:"address"`

	// Path is what all keys begin with: another one for each cluster. Default: "locum/".
	Path string `hcl:"path"`

	// Token is for Consul's access control: it needs key:write on the path and session:write on the agent's node. Default:
	// CONSUL_HTTP_TOKEN of the environment.
	Token physical.Secret `hcl:"token"`

	// TokenFile is a file with the token. It is read again when it is a second old, so that a token that runs out can be replaced.
	TokenFile string `hcl:"token_file"`

	// TokenEnv is the name of the environment variable with the token.
	TokenEnv string `hcl:"token_env"`

	// Datacenter is whose key-value store it is. Another than the agent's own can keep entries, and not the lock: that is held by
	// a session of the agent's node. Default: the agent's own.
	Datacenter string `hcl:"datacenter"`

	// Namespace is Consul Enterprise's. Default: the token's own.
	Namespace string `hcl:"namespace"`

	// Partition is Consul Enterprise's admin partition. Default: the agent's own.
	Partition string `hcl:"partition"`

	// SessionNode is the node of Consul's catalog whose session holds the lock, which ends with it: best one of Consul's servers. An
	// agent in client mode leaves when it is stopped, and ends the sessions of its own node at once. Default: the agent's own.
	SessionNode string `hcl:"session_node"`

	// SessionTTLMin is the session_ttl_min of Consul's servers, the least that lock_ttl can be. Default: "10s", as theirs.
	SessionTTLMin time.Duration `hcl:"session_ttl_min"`

	// TLSCAFile is a PEM file of authorities to verify the agent with. Default: the system's.
	TLSCAFile string `hcl:"tls_ca_file"`

	// TLSCertFile is the PEM file of a certificate to show to the agent.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file of that certificate's private key.
	TLSKeyFile string `hcl:"tls_key_file"`

	// TLSServerName is the name to expect in the agent's certificate. Default: the host that is dialled.
	TLSServerName string `hcl:"tls_server_name"`

	// TLSSkipVerify believes any agent: for trying out. Default: false.
	TLSSkipVerify bool `hcl:"tls_skip_verify"`
}

// consul checks a block at path: "storage", "ha_storage" or "service_registration".
func (c *checker) consul(path string, s ConsulStorage) {
	if strings.Contains(s.Address, "://") && !strings.HasPrefix(s.Address, "unix:///") {
		if err := checkURL(s.Address, "http", "https"); err != nil {
			c.fault(path+".address", err.Error(), `write it such as "https://127.0.0.1:8501", "127.0.0.1:8500", or "unix:///run/consul.sock"`)
		}
	} else if s.Address != "" && !strings.HasPrefix(s.Address, "unix:///") {
		c.hostPort(path+".address", s.Address, "127.0.0.1:8500")
	}
	c.oneToken(path, s.Token, s.TokenFile, s.TokenEnv)
	if s.SessionTTLMin != 0 && s.SessionTTLMin < 100*time.Millisecond {
		c.fault(path+".session_ttl_min", fmt.Sprintf("%v is too short", s.SessionTTLMin), "write what Consul's servers have, or remove the line")
	}
	c.pair(path, s.TLSCertFile, s.TLSKeyFile)
}

// oneToken finds more than one source of a token.
func (c *checker) oneToken(path string, token physical.Secret, file, env string) {
	given := 0
	for _, there := range []bool{token != "", file != "", env != ""} {
		if there {
			given++
		}
	}
	if given > 1 {
		c.fault(path+".token_file", "more than one token", "write one of token, token_file and token_env")
	}
}
