package config

import (
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// NATSStorage is a key-value bucket of NATS JetStream, on servers of 2.6.2 or later, for the HA lock. See docs/stores/nats.md.
type NATSStorage struct {
	// Address is the server's URL, "nats://host:4222" or "tls://host:4222"; several of a cluster. Default:
	// "nats://127.0.0.1:4222".
	Address OneOrMore `hcl:"address"`

	// Bucket is the key-value bucket. It is made if it is not there. Default: "locum".
	Bucket string `hcl:"bucket"`

	// Key is the lock's key in it: another one for each cluster. Default: "lock".
	Key string `hcl:"key"`

	// Replicas is on how many servers a bucket that Locum makes is kept: 1, 3 or 5. Default: 1.
	Replicas int `hcl:"replicas"`

	// CredentialsFile is a file with a user's JWT and seed.
	CredentialsFile string `hcl:"credentials_file"`

	// NKeyFile is a file with an nkey's seed.
	NKeyFile string `hcl:"nkey_file"`

	// Username is who logs in.
	Username string `hcl:"username"`

	// Password is that user's password.
	Password physical.Secret `hcl:"password"`

	// PasswordFile is a file with the password, read for each new connection.
	PasswordFile string `hcl:"password_file"`

	// PasswordEnv is the name of the environment variable with the password.
	PasswordEnv string `hcl:"password_env"`

	// Token logs in without a user.
	Token physical.Secret `hcl:"token"`

	// TokenEnv is the name of the environment variable with the token.
	TokenEnv string `hcl:"token_env"`

	// TLS demands TLS. The settings that follow imply it. Default: false.
	TLS bool `hcl:"tls"`

	// TLSCAFile is a PEM file of authorities to verify the server with. Default: the system's.
	TLSCAFile string `hcl:"tls_ca_file"`

	// TLSCertFile is the PEM file of a certificate to show to the server.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file of that certificate's private key.
	TLSKeyFile string `hcl:"tls_key_file"`

	// TLSServerName is the name to expect in the server's certificate. Default: the host that is dialled.
	TLSServerName string `hcl:"tls_server_name"`

	// TLSSkipVerify believes any server: for trying out. Default: false.
	TLSSkipVerify bool `hcl:"tls_skip_verify"`
}

// nats checks a block at path.
func (c *checker) nats(path string, n NATSStorage) {
	for i, a := range n.Address {
		if err := checkURL(a, "nats", "tls", "ws", "wss"); err != nil {
			c.fault(fmt.Sprintf("%s.address[%d]", path, i), "not a URL of NATS", `write it such as "nats://nats.example.com:4222"`)
		}
	}
	if n.Replicas != 0 && n.Replicas != 1 && n.Replicas != 3 && n.Replicas != 5 {
		c.fault(path+".replicas", fmt.Sprintf("%d replicas", n.Replicas), "write 1, 3 or 5")
	}
	ways := 0
	for _, given := range []bool{n.CredentialsFile != "", n.NKeyFile != "", n.Username != "", n.Token != "" || n.TokenEnv != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		c.fault(path, "more than one way to log in", "write one of credentials_file, nkey_file, username, and token or token_env")
	}
	if n.Token != "" && n.TokenEnv != "" {
		c.fault(path+".token_env", "more than one token", "write one of token and token_env")
	}
	c.onePassword(path, n.Password, n.PasswordFile, n.PasswordEnv)
	c.pair(path, n.TLSCertFile, n.TLSKeyFile)
}
