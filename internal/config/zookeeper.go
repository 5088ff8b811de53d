package config

import (
	"fmt"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// ZooKeeperStorage is an ensemble of ZooKeeper, 3.5 or later. See docs/stores/zookeeper.md.
type ZooKeeperStorage struct {
	// Address is the servers' "host:port": all of them, so that one may fail. Default: "127.0.0.1:2181".
	Address OneOrMore `hcl:"address"`

	// Path is the node below which everything lies: another one for each cluster. It is made if it is not there. Default:
	// "/locum".
	Path string `hcl:"path"`

	// Username is who logs in, by ZooKeeper's digest scheme. What Locum makes can then be read and written by that user
	// alone; without, by everybody who reaches the servers.
	Username string `hcl:"username"`

	// Password is that user's password.
	Password physical.Secret `hcl:"password"`

	// PasswordFile is a file with the password, read at the start.
	PasswordFile string `hcl:"password_file"`

	// PasswordEnv is the name of the environment variable with the password.
	PasswordEnv string `hcl:"password_env"`

	// TLS connects to the servers' secureClientPort. The settings that follow imply it. Default: false.
	TLS bool `hcl:"tls"`

	// TLSCAFile is a PEM file of authorities to verify the servers with. Default: the system's.
	TLSCAFile string `hcl:"tls_ca_file"`

	// TLSCertFile is the PEM file of a certificate to show to the servers.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file of that certificate's private key.
	TLSKeyFile string `hcl:"tls_key_file"`

	// TLSServerName is the name to expect in the servers' certificates. Default: the host that is dialled.
	TLSServerName string `hcl:"tls_server_name"`

	// TLSSkipVerify believes any server: for trying out. Default: false.
	TLSSkipVerify bool `hcl:"tls_skip_verify"`
}

// zooKeeper checks a block at path: "storage" or "ha_storage".
func (c *checker) zooKeeper(path string, s ZooKeeperStorage) {
	for i, a := range s.Address {
		c.hostPort(fmt.Sprintf("%s.address[%d]", path, i), a, "zookeeper-0.example.com:2181")
	}
	if s.Path != "" && !strings.HasPrefix(s.Path, "/") {
		c.fault(path+".path", fmt.Sprintf("%q does not begin with \"/\"", s.Path), `write it such as "/locum"`)
	}
	password := s.Password != "" || s.PasswordFile != "" || s.PasswordEnv != ""
	if password != (s.Username != "") {
		c.fault(path+".username", "user name and password go together", "write both, or neither")
	}
	c.onePassword(path, s.Password, s.PasswordFile, s.PasswordEnv)
	c.pair(path, s.TLSCertFile, s.TLSKeyFile)
}
