package config

import (
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// RedisStorage is a server of Redis, 6.2 or later, for the HA lock. See docs/stores/redis.md.
type RedisStorage struct {
	// Address is the server's "host:port"; several of a cluster, or of the sentinels. Default: "127.0.0.1:6379".
	Address OneOrMore `hcl:"address"`

	// SentinelMaster is the name of the master that the sentinels at address watch. Default: no sentinels.
	SentinelMaster string `hcl:"sentinel_master"`

	// Cluster says that address names nodes of a cluster. Default: false.
	Cluster bool `hcl:"cluster"`

	// Username is who logs in. Default: the default user.
	Username string `hcl:"username"`

	// Password is that user's password.
	Password physical.Secret `hcl:"password"`

	// PasswordFile is a file with the password, read for each new connection.
	PasswordFile string `hcl:"password_file"`

	// PasswordEnv is the name of the environment variable with the password.
	PasswordEnv string `hcl:"password_env"`

	// SentinelUsername is who logs in to the sentinels. Default: the default user.
	SentinelUsername string `hcl:"sentinel_username"`

	// SentinelPassword is that user's password.
	SentinelPassword physical.Secret `hcl:"sentinel_password"`

	// SentinelPasswordEnv is the name of the environment variable with that password.
	SentinelPasswordEnv string `hcl:"sentinel_password_env"`

	// Database is the number of the database. Default: 0.
	Database int `hcl:"database"`

	// Prefix is what the names of the keys begin with: another one for each cluster. Default: "locum".
	Prefix string `hcl:"prefix"`

	// WaitReplicas is how many replicas must have the lock, and each renewal, before it counts (WAIT). Default: 0.
	WaitReplicas int `hcl:"wait_replicas"`

	// WaitTimeout is how long they are waited for. Default: "500ms".
	WaitTimeout time.Duration `hcl:"wait_timeout"`

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

// redis checks a block at path.
func (c *checker) redis(path string, r RedisStorage) {
	for i, a := range r.Address {
		c.hostPort(fmt.Sprintf("%s.address[%d]", path, i), a, "redis.example.com:6379")
	}
	switch {
	case r.Cluster && r.SentinelMaster != "":
		c.fault(path+".cluster", "cluster and sentinel_master", "write one of them")
	case len(r.Address) > 1 && !r.Cluster && r.SentinelMaster == "":
		c.fault(path+".address", "several addresses of one server", "write sentinel_master, or cluster = true")
	}
	if r.Database < 0 || r.Cluster && r.Database != 0 {
		c.fault(path+".database", fmt.Sprintf("there is no database %d", r.Database), "remove the line")
	}
	if r.WaitReplicas < 0 {
		c.fault(path+".wait_replicas", "negative", "write a number of replicas, or remove the line")
	}
	c.onePassword(path, r.Password, r.PasswordFile, r.PasswordEnv)
	if r.SentinelPassword != "" && r.SentinelPasswordEnv != "" {
		c.fault(path+".sentinel_password_env", "more than one password", "write one of sentinel_password and sentinel_password_env")
	}
	c.pair(path, r.TLSCertFile, r.TLSKeyFile)
}
