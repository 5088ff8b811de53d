package config

import (
	"cmp"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// stores are the data stores that a block can name, and what they can be.
var stores = []struct {
	name    string
	entries bool // storage
	lock    bool // ha_storage
	alone   bool // one node: no other process can open it
}{
	{name: "raft", entries: true},
	{name: "file", entries: true, alone: true},
	{name: "inmem", entries: true, alone: true},
	{name: "consul", entries: true, lock: true},
	{name: "etcd", entries: true, lock: true},
	{name: "zookeeper", entries: true, lock: true},
	{name: "postgresql", entries: true, lock: true},
	{name: "mysql", entries: true, lock: true},
	{name: "s3", entries: true, lock: true},
	{name: "redis", lock: true},
	{name: "nats", lock: true},
	{name: "kubernetes", lock: true},
	{name: "dynamodb", lock: true},
}

// storeNames lists the stores that can be storage, or ha_storage.
func storeNames(lock bool) (names []string) {
	for _, s := range stores {
		if lock && s.lock || !lock && s.entries {
			names = append(names, s.name)
		}
	}
	return names
}

// alone reports whether the storage of this type can be opened by one process only.
func alone(kind string) bool {
	for _, s := range stores {
		if s.name == kind {
			return s.alone
		}
	}
	return false
}

// HAEnabled reports whether the configuration is that of a cluster.
func (c *Config) HAEnabled() bool { return c.Storage.Type != "" && !alone(c.Storage.Type) }

// storageBlocks checks which stores the two blocks name, and whether they go together.
func (c *checker) storageBlocks() {
	kind, lock := c.Storage.Type, c.HAStorage.Type
	entries := storeNames(false)
	switch {
	case kind == "":
		c.fault("storage", "missing", `write storage "raft" { path = "/var/lib/locum" }`)
	case slices.Contains(entries, kind):
	case slices.Contains(storeNames(true), kind):
		c.fault("storage", fmt.Sprintf("%q keeps the HA lock only: it has no transaction over several entries and a fence", kind),
			fmt.Sprintf("write ha_storage %q, beside a storage of %s", kind, either(entries)))
	default:
		c.fault("storage", fmt.Sprintf("%q is not known", kind), "write "+either(entries))
	}
	locks := storeNames(true)
	switch {
	case lock == "":
	case kind == "raft":
		c.fault("ha_storage", "raft storage has its own lock", "remove the block")
	case alone(kind):
		c.fault("ha_storage", fmt.Sprintf("storage %q can be opened by one node only: a lock that other nodes see would be of no use", kind),
			"remove the block, or use a storage that all nodes reach: "+either(slices.DeleteFunc(storeNames(true), func(name string) bool { return !slices.Contains(entries, name) })))
	case slices.Contains(locks, lock):
	case lock == "raft":
		c.fault("ha_storage", `"raft" can be a lock for itself only: the nodes would have to be a cluster to form one`, `write storage "raft", without ha_storage, or ha_storage `+either(locks))
	case slices.Contains(entries, lock):
		c.fault("ha_storage", fmt.Sprintf("%q is seen by one node only: each would hold a lock of its own", lock), "write "+either(locks))
	default:
		c.fault("ha_storage", fmt.Sprintf("%q is not known", lock), "write "+either(locks))
	}
}

// placed are the settings that say where in a data store the lock or the entries lie, however it is reached.
var placed = []string{"path", "prefix", "key", "bucket", "table", "database", "schema", "table_prefix", "namespace", "name", "datacenter", "partition"}

// usual are the defaults of those that have one: a place is the same whether they are written out or not.
var usual = map[string]string{
	"consul.path": "locum", "etcd.path": "locum", "zookeeper.path": "locum", "s3.path": "locum", "redis.prefix": "locum",
	"nats.bucket": "locum", "nats.key": "lock", "kubernetes.name": "locum", "dynamodb.table": "locum", "dynamodb.key": "locum",
	"postgresql.table_prefix": "locum_", "mysql.table_prefix": "locum_", "mysql.database": "locum",
}

// LockPlace names the store that keeps the HA lock, and the place in it: the same on all nodes of a cluster, whatever
// addresses they reach the store at.
func (c *Config) LockPlace() string {
	s := c.HAStorage
	if s.Type == "" {
		s = c.Storage
	}
	words := []string{s.Type}
	v, t := reflect.ValueOf(s), reflect.TypeFor[Storage]()
	for i := range t.NumField() {
		name, kind, _ := strings.Cut(t.Field(i).Tag.Get("hcl"), ",")
		if name != s.Type || kind != "variant" {
			continue
		}
		block := v.Field(i)
		for j := range block.NumField() {
			setting := block.Type().Field(j).Tag.Get("hcl")
			if !slices.Contains(placed, setting) || block.Field(j).IsZero() {
				continue
			}
			if value := strings.Trim(fmt.Sprint(block.Field(j).Interface()), "/"); value != usual[s.Type+"."+setting] {
				words = append(words, setting+"="+value)
			}
		}
	}
	if s.Type == "postgresql" {
		words = append(words, s.PostgreSQL.database()...)
	}
	return strings.Join(words, " ")
}

// database is the one that the connection string names, as a word of a place; none if it names none.
func (p PostgreSQLStorage) database() []string {
	name := ""
	if u, err := url.Parse(string(p.ConnectionURL)); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		name = cmp.Or(u.Query().Get("dbname"), strings.Trim(u.Path, "/"))
	} else {
		for word := range strings.FieldsSeq(string(p.ConnectionURL)) {
			if value, ok := strings.CutPrefix(word, "dbname="); ok {
				name = strings.Trim(value, "'")
			}
		}
	}
	if name == "" {
		return nil
	}
	return []string{"database=" + name}
}
