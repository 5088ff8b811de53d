package config

import (
	"strings"
	"testing"

	"github.com/locum-ha/locum/physical"
)

const listening = "listener \"tcp\" {\n tls_disable = true\n}\n"

// The blocks of PostgreSQL, MySQL, Redis and NATS say what is wrong with them, and show no secret.
func TestFaultsOfDatabases(t *testing.T) {
	const secret = "hunter2-Zq9"
	postgres := "storage \"postgresql\" {\n connection_url = \"postgres://u:" + secret + "@h/d\"\n"
	for name, c := range map[string]struct{ text, want string }{
		"no URL":            {"storage \"postgresql\" {\n}\n", "node.hcl:1: storage.connection_url: missing; write connection_url ="},
		"two passwords":     {postgres + " password_file = \"/p\"\n password_env = \"P\"\n}\n", "storage.password_file: more than one password"},
		"one connection":    {postgres + " max_connections = 1\n}\n", "node.hcl:3: storage.max_connections: too few; write at least 2"},
		"pooler":            {postgres + " pooler = \"maybe\"\n}\n", `node.hcl:3: storage.pooler: "maybe" is not known; write "yes" or "no"`},
		"mysql as URL":      {"storage \"mysql\" {\n address = \"tcp(h:1)\"\n}\n", "is not an address; write it such as \"db.example.com:3306\""},
		"half a pair":       {"storage \"mysql\" {\n tls_cert_file = \"/c\"\n}\n", "a certificate and its key go together"},
		"redis for entries": {"storage \"redis\" {\n}\n", `storage: "redis" keeps the HA lock only`},
		"nats for entries":  {"storage \"nats\" {\n}\n", `storage: "nats" keeps the HA lock only`},
		"redis, two":        {postgres + "}\nha_storage \"redis\" {\n address = [\"a:1\", \"b:1\"]\n}\n", "node.hcl:5: ha_storage.address: several addresses of one server; write sentinel_master, or cluster = true"},
		"redis, database":   {postgres + "}\nha_storage \"redis\" {\n cluster = true\n database = 1\n}\n", "ha_storage.database: there is no database 1"},
		"redis, passwords":  {postgres + "}\nha_storage \"redis\" {\n password = \"" + secret + "\"\n password_env = \"P\"\n}\n", "ha_storage.password_file: more than one password"},
		"nats, scheme":      {postgres + "}\nha_storage \"nats\" {\n address = \"n1:4222\"\n}\n", "ha_storage.address[0]: not a URL of NATS"},
		"nats, login":       {postgres + "}\nha_storage \"nats\" {\n token = \"" + secret + "\"\n username = \"u\"\n}\n", "more than one way to log in"},
		"nats, replicas":    {postgres + "}\nha_storage \"nats\" {\n replicas = 2\n}\n", "ha_storage.replicas: 2 replicas; write 1, 3 or 5"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := complete(t, c.text+listening, host(nil))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got:\n%v\nwant:\n%s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the fault shows a secret: %v", err)
			}
		})
	}
}

// Addresses may be one or a list, and two nodes that reach one database by different ways agree on where the lock is.
func TestDatabases(t *testing.T) {
	c, err := complete(t, "storage \"mysql\" {\n address = [\"a:3306\", \"/run/mysqld/mysqld.sock\"]\n database = \"d\"\n password = \"p\"\n}\nha_storage \"nats\" {\n address = \"tls://n:4222\"\n bucket = \"b\"\n}\n"+listening, host(nil))
	if err != nil {
		t.Fatal(err)
	}
	m := c.Storage.MySQL
	if len(m.Address) != 2 || m.Database != "d" || m.Password != physical.Secret("p") {
		t.Errorf("read as %+v", m)
	}
	if place := c.LockPlace(); place != "nats bucket=b" {
		t.Errorf("the lock is at %q", place)
	}
	other, err := complete(t, "storage \"mysql\" {\n}\nha_storage \"nats\" {\n address = \"nats://m:4222\"\n bucket = \"b\"\n}\n"+listening, host(nil))
	if err != nil || other.LockPlace() != c.LockPlace() {
		t.Errorf("from another node it is at %q, %v", other.LockPlace(), err)
	}
}
