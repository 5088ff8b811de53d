package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// MySQLStorage is a server of MySQL, 8.0 or later, or MariaDB, 10.6 or later. See docs/stores/mysql.md.
type MySQLStorage struct {
	// Address is the server's "host:port", or the path of its socket; several are tried in turn until one takes writes: all but the
	// primary must have read_only = ON. Default: "127.0.0.1:3306".
	Address OneOrMore `hcl:"address"`

	// Username is who logs in. Default: "locum".
	Username string `hcl:"username"`

	// Password is that user's password.
	Password physical.Secret `hcl:"password"`

	// PasswordFile is a file with the password, read for each new connection.
	PasswordFile string `hcl:"password_file"`

	// PasswordEnv is the name of the environment variable with the password.
	PasswordEnv string `hcl:"password_env"`

	// Database is the database with Locum's tables. It must be there. Default: "locum".
	Database string `hcl:"database"`

	// TablePrefix is what the names of Locum's tables begin with: another one for each cluster in one database. Default:
	// "locum_".
	TablePrefix string `hcl:"table_prefix"`

	// MaxConnections is how many connections a node opens for entries, besides three for the lock. Default: 24.
	MaxConnections int `hcl:"max_connections"`

	// SingleWriter promises that all nodes reach the same one of several servers that take writes: Galera, or group
	// replication in multi-primary mode, which are refused without, and so is, of several addresses, a replica that takes writes.
	// Default: false.
	SingleWriter bool `hcl:"single_writer"`

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

// mySQL checks a block at path: "storage" or "ha_storage".
func (c *checker) mySQL(path string, m MySQLStorage) {
	for i, a := range m.Address {
		if !strings.HasPrefix(a, "/") {
			c.hostPort(fmt.Sprintf("%s.address[%d]", path, i), a, "db.example.com:3306")
		}
	}
	c.onePassword(path, m.Password, m.PasswordFile, m.PasswordEnv)
	if m.MaxConnections != 0 && m.MaxConnections < 3 {
		c.fault(path+".max_connections", "too few", "write at least 3, or remove the line")
	}
	c.pair(path, m.TLSCertFile, m.TLSKeyFile)
}

// hostPort checks an address of a data store.
func (c *checker) hostPort(path, address, example string) {
	host, port, err := net.SplitHostPort(address)
	if _, number := strconv.ParseUint(port, 10, 16); err != nil || host == "" || number != nil {
		c.fault(path, fmt.Sprintf("%q is not an address", address), fmt.Sprintf("write it such as %q", example))
	}
}

// pair finds a certificate without its key.
func (c *checker) pair(path, cert, key string) {
	if (cert == "") != (key == "") {
		c.fault(path+".tls_cert_file", "a certificate and its key go together", "write tls_cert_file and tls_key_file, or neither")
	}
}
