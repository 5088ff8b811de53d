package config

import (
	"fmt"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// EtcdStorage is a cluster of etcd, 3.4 or later. See docs/stores/etcd.md.
type EtcdStorage struct {
	// Endpoints are the URLs of the servers, http:// or https://: all of them, so that one may fail. Default:
	// "http://127.0.0.1:2379".
	Endpoints OneOrMore `hcl:"endpoints"`

	// Path is what all keys begin with: another one for each cluster. Default: "locum/".
	Path string `hcl:"path"`

	// Username is who logs in, where etcd's authentication is on. The user needs readwrite on the path.
	Username string `hcl:"username"`

	// Password is that user's password.
	Password physical.Secret `hcl:"password"`

	// PasswordFile is a file with the password, read at the start.
	PasswordFile string `hcl:"password_file"`

	// PasswordEnv is the name of the environment variable with the password.
	PasswordEnv string `hcl:"password_env"`

	// TLSCAFile is a PEM file of authorities to verify the servers with. Default: the system's.
	TLSCAFile string `hcl:"tls_ca_file"`

	// TLSCertFile is the PEM file of a certificate to show to the servers. Its common name may stand for a user name.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file of that certificate's private key.
	TLSKeyFile string `hcl:"tls_key_file"`

	// TLSServerName is the name to expect in the servers' certificates. Default: the host that is dialled.
	TLSServerName string `hcl:"tls_server_name"`

	// TLSSkipVerify believes any server: for trying out. Default: false.
	TLSSkipVerify bool `hcl:"tls_skip_verify"`
}

// etcd checks a block at path: "storage" or "ha_storage".
func (c *checker) etcd(path string, s EtcdStorage) {
	secure := 0
	for i, endpoint := range s.Endpoints {
		if err := checkURL(endpoint, "http", "https"); err != nil {
			c.fault(fmt.Sprintf("%s.endpoints[%d]", path, i), err.Error(), `write it such as "https://etcd-0.example.com:2379"`)
		}
		if strings.HasPrefix(endpoint, "https://") {
			secure++
		}
	}
	if secure != 0 && secure != len(s.Endpoints) {
		c.fault(path+".endpoints", "some are http:// and some https://", "write one of the two for all")
	}
	password := s.Password != "" || s.PasswordFile != "" || s.PasswordEnv != ""
	if password != (s.Username != "") {
		c.fault(path+".username", "user name and password go together", "write both, or neither")
	}
	c.onePassword(path, s.Password, s.PasswordFile, s.PasswordEnv)
	c.pair(path, s.TLSCertFile, s.TLSKeyFile)
}
