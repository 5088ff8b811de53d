package config

import "time"

// Config is everything that is told to a node when it starts.
type Config struct {
	// ClusterName names the cluster, for people and metrics. Default: "locum".
	ClusterName string `hcl:"cluster_name"`

	// NodeName names this node, for people, step-down and metrics; unique in its cluster. Letters, digits,
	// ".", "_" and "-". Default: the host name.
	NodeName string `hcl:"node_name"`

	// APIAddr is the URL of this node's API as clients reach it, and where a standby's clients are redirected to
	// when it is active: http:// or https://, a host, perhaps a port and a path. The environment's
	// LOCUM_API_ADDR, LOCUM_CLUSTER_ADVERTISE_ADDR and VAULT_API_ADDR, and the flag -cluster-advertise-addr,
	// take precedence. Default: the listener's address, or the one that the agent of a storage "consul" advertises for
	// this host, or the first private address of this host.
	APIAddr string `hcl:"api_addr"`

	// ClusterAddr is the URL of this node's cluster port as the other nodes reach it: https://host:port. The
	// environment's LOCUM_CLUSTER_ADDR and VAULT_CLUSTER_ADDR take precedence. Default: the host of api_addr with
	// the port of the listener's cluster_address.
	ClusterAddr string `hcl:"cluster_addr"`

	// Listeners are where this node listens; at least one.
	Listeners []Listener `hcl:"listener,block"`

	// Storage is the data store that keeps the entries; required.
	Storage Storage `hcl:"storage,block"`

	// HAStorage is the data store that keeps the HA lock, where it is another one than storage. Raft storage takes
	// none: its lock is its own.
	HAStorage Storage `hcl:"ha_storage,block"`

	// ServiceRegistration is where this node says what it is, so that clients find the active one. Default: nowhere.
	ServiceRegistration Registration `hcl:"service_registration,block"`

	// Seal is how the root key is protected. Default: "shamir".
	Seal Seal `hcl:"seal,block"`

	// HA is how this node takes part in the election.
	HA HA `hcl:"ha,block"`

	// Forwarding is what a standby does with requests.
	Forwarding Forwarding `hcl:"forwarding,block"`

	// Applications are the servers that this node protects; none for a node that keeps entries only.
	Applications []Application `hcl:"application,block"`

	// Cache is this node's part of the replicated in-memory cache; without the block there is none.
	Cache Cache `hcl:"cache,block"`

	// RateLimit is what clients may ask for without a token.
	RateLimit RateLimit `hcl:"rate_limit,block"`

	// Telemetry is about metrics.
	Telemetry Telemetry `hcl:"telemetry,block"`

	// LogLevel is the least severe level that is logged: debug, info, warn or error. Default: "info".
	LogLevel string `hcl:"log_level"`

	// LogFormat is text or json. Default: "text".
	LogFormat string `hcl:"log_format"`

	// Embedded says that a Go program runs the node and opens the data stores itself: of Storage and HAStorage only
	// the types are given, and of Seal only that.
	Embedded bool

	// APIAddrFrom and ClusterAddrFrom say where the addresses come from, for the start-up table.
	APIAddrFrom, ClusterAddrFrom string

	// Warnings are what may be meant, but seldom is: one sentence each.
	Warnings []string

	where positions
}

// Listener is one address that the API is served on.
type Listener struct {
	// Type is the label of the block: "tcp" or "unix".
	Type string `hcl:"type,label"`

	// Address is the host:port that the API listens on, or with listener "unix" the absolute path of the socket. A
	// socket that an earlier process left behind is replaced; at exit it is removed. Default: "127.0.0.1:8400"; with "unix"
	// it is required.
	Address string `hcl:"address"`

	// ClusterAddress is the host:port of the cluster port, of which a node has one: in the first listener "tcp" block.
	// Default: the host of address, with its port + 1.
	ClusterAddress string `hcl:"cluster_address"`

	// TLSCertFile is the PEM file with the certificate and its chain. Required with listener "tcp" unless tls_disable is
	// set. The three files are read again on SIGHUP: new connections get what they hold then, open ones go on; if one of them
	// cannot be used, all listeners stay as they are.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file with the certificate's private key. Required where tls_cert_file is.
	TLSKeyFile string `hcl:"tls_key_file"`

	// TLSClientCAFile is a PEM file of authorities. When it is given, clients must show a certificate of one of them; the
	// other nodes are clients too when they join (leader_client_cert_file).
	TLSClientCAFile string `hcl:"tls_client_ca_file"`

	// TLSMinVersion is the oldest version of TLS that is spoken: "tls12" or "tls13". Default: "tls12".
	TLSMinVersion string `hcl:"tls_min_version"`

	// TLSDisable serves plain HTTP. With TLS and without, HTTP/1.1 and HTTP/2 are served. Default: false; with listener
	// "unix" true, unless there is a certificate.
	TLSDisable bool `hcl:"tls_disable"`

	// SocketMode are the permissions of a listener "unix", in octal digits; who may write may connect. Default: "0600".
	SocketMode string `hcl:"socket_mode"`

	// SocketUser is the owner of a listener "unix", a name or number. Default: Locum's own user.
	SocketUser string `hcl:"socket_user"`

	// SocketGroup is the group of a listener "unix", a name or number. Default: Locum's own group.
	SocketGroup string `hcl:"socket_group"`

	// XForwardedForAuthorizedAddrs are the proxies, as addresses or CIDR ranges, whose X-Forwarded-* headers are
	// believed; with listener "unix", "unix" means all who can open the socket. The client is the last address in
	// X-Forwarded-For that is none of them, and what stands before it is dropped; so are these headers of everybody else. Such a proxy must
	// set or remove X-Forwarded-Host and X-Forwarded-Proto, too. Default: none.
	XForwardedForAuthorizedAddrs []string `hcl:"x_forwarded_for_authorized_addrs"`

	// ProxyProtocol expects the PROXY protocol, version 1 or 2, on every connection from proxy_protocol_authorized_addrs: one
	// without its header is closed. Others connect as always, and a header from them is refused as bad HTTP. Default: false.
	ProxyProtocol bool `hcl:"proxy_protocol"`

	// ProxyProtocolAuthorizedAddrs are the senders of the PROXY protocol, as addresses or CIDR ranges; with listener
	// "unix", "unix" means all who can open the socket. Required with proxy_protocol.
	ProxyProtocolAuthorizedAddrs []string `hcl:"proxy_protocol_authorized_addrs"`

	// HTTPReadHeaderTimeout is how long a client may take for the TLS handshake, for the PROXY protocol's header and for the
	// head of a request, each. Default: "10s".
	HTTPReadHeaderTimeout time.Duration `hcl:"http_read_header_timeout"`

	// HTTPReadTimeout is how long the body of a request may take to come, "0" for no limit: how long a snapshot takes to
	// be uploaded depends on its size, and a body that stops coming is ended by http_min_body_rate. Default: "0".
	HTTPReadTimeout time.Duration `hcl:"http_read_timeout"`

	// HTTPMinBodyRate is how much of a request's body must come in a second, on the average of each 10 seconds that the node
	// waits for it; a slower client is answered 408. "0" for no limit. Default: "256B".
	HTTPMinBodyRate Size `hcl:"http_min_body_rate"`

	// HTTPIdleTimeout is how long a connection without a request is kept open. Default: "5m".
	HTTPIdleTimeout time.Duration `hcl:"http_idle_timeout"`

	// MaxHeaderBytes is how long the head of a request may be; a longer one is answered 431. "4KiB" to "1MiB". Default: "64KiB".
	MaxHeaderBytes Size `hcl:"max_header_bytes"`

	// MaxRequestSize is the size beyond which a request's body is refused with 413, "0" for no limit; in the first
	// listener block, for all. Default: "0".
	MaxRequestSize Size `hcl:"max_request_size"`
}

// Storage is a data store. Exactly the settings of its Type apply.
type Storage struct {
	// Type is the label of the block. As storage: "raft", "file", "inmem", "consul", "etcd", "zookeeper", "postgresql",
	// "mysql" or "s3"; as ha_storage: the last six, "redis", "nats", "kubernetes" or "dynamodb".
	Type string `hcl:"type,label"`

	// Raft is the embedded store, replicated between the nodes.
	Raft RaftStorage `hcl:"raft,variant"`

	// File keeps the entries in files on this host: one node, no standby.
	File FileStorage `hcl:"file,variant"`

	// InMem keeps the entries in memory and forgets them at the end: one node, for trying out.
	InMem InMemStorage `hcl:"inmem,variant"`

	// Consul is Consul's key-value store.
	Consul ConsulStorage `hcl:"consul,variant"`

	// Etcd is a cluster of etcd, 3.4 or later.
	Etcd EtcdStorage `hcl:"etcd,variant"`

	// ZooKeeper is an ensemble of ZooKeeper, 3.5 or later.
	ZooKeeper ZooKeeperStorage `hcl:"zookeeper,variant"`

	// S3 is a bucket of Amazon S3 or of a compatible service.
	S3 S3Storage `hcl:"s3,variant"`

	// DynamoDB keeps the HA lock in an item of a DynamoDB table; as ha_storage only.
	DynamoDB DynamoDBStorage `hcl:"dynamodb,variant"`

	// Kubernetes keeps the HA lock in a Lease object of the Kubernetes API; as ha_storage only.
	Kubernetes KubernetesStorage `hcl:"kubernetes,variant"`

	// PostgreSQL is a PostgreSQL server, 12 or later.
	PostgreSQL PostgreSQLStorage `hcl:"postgresql,variant"`

	// MySQL is a server of MySQL, 8.0 or later, or MariaDB, 10.6 or later.
	MySQL MySQLStorage `hcl:"mysql,variant"`

	// Redis is a server of Redis, 6.2 or later, for the HA lock.
	Redis RedisStorage `hcl:"redis,variant"`

	// NATS is a key-value bucket of NATS JetStream, for the HA lock.
	NATS NATSStorage `hcl:"nats,variant"`
}

// RaftStorage is the embedded store.
type RaftStorage struct {
	// Path is the data directory. It is made if it is not there. Required. The node's identity is made with it.
	Path string `hcl:"path"`

	// Performance scales all raft times: "lan" (1), "wan" (5), or a number between 0.1 and 100. A crashed leader is
	// replaced within about a second times this number. The same on all nodes. Default: "lan".
	Performance Performance `hcl:"performance"`

	// RetryJoin are the nodes through which this one joins its cluster, tried in turn until one of them lets it in. A
	// node may list itself; it is passed over. Ignored once the node is a member.
	RetryJoin []RetryJoin `hcl:"retry_join,block"`

	// SnapshotSize is how much log may gather before it is replaced by a snapshot. Default: "64MiB".
	SnapshotSize Size `hcl:"snapshot_size"`

	// DeadPeerTimeout is how long a member may be silent before it is removed, never below a quorum of three; "0"
	// removes nobody. Default: "24h".
	DeadPeerTimeout time.Duration `hcl:"dead_peer_timeout"`
}

// RetryJoin is one node through which to join.
type RetryJoin struct {
	// LeaderAPIAddr is its api_addr: http:// or https://. It need not be the active node. Required.
	LeaderAPIAddr string `hcl:"leader_api_addr"`

	// LeaderCACertFile is a PEM file of authorities to verify its certificate with. Default: the system's.
	LeaderCACertFile string `hcl:"leader_ca_cert_file"`

	// LeaderCACert is the same as PEM text.
	LeaderCACert string `hcl:"leader_ca_cert"`

	// LeaderClientCertFile is the PEM file of a certificate to show to it, where its listener asks for one.
	LeaderClientCertFile string `hcl:"leader_client_cert_file"`

	// LeaderClientKeyFile is the PEM file of that certificate's private key.
	LeaderClientKeyFile string `hcl:"leader_client_key_file"`

	// LeaderTLSServerName is the name to expect in its certificate. Default: the host of leader_api_addr.
	LeaderTLSServerName string `hcl:"leader_tls_servername"`
}

// FileStorage keeps the entries in files.
type FileStorage struct {
	// Path is the data directory. It is made if it is not there. Required.
	Path string `hcl:"path"`
}

// InMemStorage has no settings.
type InMemStorage struct{}

// Seal is how the root key is protected. Exactly the settings of its Type apply.
type Seal struct {
	// Type is the label of the block: "static" or "shamir".
	Type string `hcl:"type,label"`

	// Static opens by itself, with a key from a file or the environment: for unattended starts.
	Static StaticSeal `hcl:"static,variant"`

	// Shamir is opened by people who each hold a share.
	Shamir ShamirSeal `hcl:"shamir,variant"`
}

// StaticSeal is a key of 32 bytes, the same on every node: raw, as hex or as base64.
type StaticSeal struct {
	// KeyFile is the file with the key. It should be readable by Locum's user alone. One of key_file and key_env.
	KeyFile string `hcl:"key_file"`

	// KeyEnv is the name of the environment variable with the key, as hex or base64. One of key_file and key_env.
	KeyEnv string `hcl:"key_env"`
}

// ShamirSeal has no settings: shares and threshold are chosen at init.
type ShamirSeal struct{}

// HA is how this node takes part in the election.
type HA struct {
	// LockTTL is how long the HA lock outlives its last renewal. Not with raft storage: its times follow from
	// performance. Default: the store's, mostly "5s" (docs/stores.md).
	LockTTL time.Duration `hcl:"lock_ttl"`

	// Priority is who goes first when several nodes could take over: the higher one. 0 to 1000. Default: 100.
	Priority int `hcl:"priority"`

	// Candidate says whether this node may become active. Default: true.
	Candidate bool `hcl:"candidate"`

	// MinFailoverInterval is how long a node must have been active before another takes over from it unplanned, so that a
	// fault which kills one node after the other is not carried around; the node itself may come back earlier, and a step-down is
	// always possible. "0s" to "24h". Default: "0s".
	MinFailoverInterval time.Duration `hcl:"min_failover_interval"`

	// DrainTimeout is how long requests in flight may take to end at a planned step-down. Default: "15s".
	DrainTimeout time.Duration `hcl:"drain_timeout"`

	// ShutdownDelay is how long a node that was asked to end goes on forwarding after it says 503 on /ready, for load
	// balancers to notice. Default: "0s".
	ShutdownDelay time.Duration `hcl:"shutdown_delay"`
}

// Forwarding is what a standby does with requests.
type Forwarding struct {
	// Mode is forward (pass requests on to the active node) or redirect (answer 307). Default: "forward".
	Mode string `hcl:"mode"`

	// HoldTimeout is how long a request is kept waiting for an active node. At least drain_timeout + 20s, so that it
	// outlasts a planned step-down: 10s for the application to stop, 10s for the next node to start. Default: "40s".
	HoldTimeout time.Duration `hcl:"hold_timeout"`

	// HoldMaxRequests is how many requests are kept waiting at a time; more are answered 503. Default: 10000.
	HoldMaxRequests int `hcl:"hold_max_requests"`

	// HoldMaxBytes is how much memory the bodies of waiting requests may take; more are answered 503. Default: "64MiB".
	HoldMaxBytes Size `hcl:"hold_max_bytes"`

	// RetryBuffer is the size up to which a request's body is kept so that the request can be sent again. A longer
	// one streams, and cannot be repeated. Default: "1MiB".
	RetryBuffer Size `hcl:"retry_buffer"`
}

// Telemetry is about metrics.
type Telemetry struct {
	// PrometheusRetentionTime is accepted for files written for Vault; Prometheus asks when it wants, and nothing is
	// retained. Default: "30s".
	PrometheusRetentionTime time.Duration `hcl:"prometheus_retention_time"`

	// UnauthenticatedMetricsAccess lets everybody read /v1/sys/metrics. Default: false.
	UnauthenticatedMetricsAccess bool `hcl:"unauthenticated_metrics_access"`
}
