package storeserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// ZooKeeper is a server of ZooKeeper, alone.
type ZooKeeper struct {
	*Process
	Addr    string // where clients connect to, "host:port"
	TLSAddr string // the same over TLS; "" unless it was started with certificates
}

// zooKeeperJars are Debian's: the server's jar names in its manifest all that it needs, but the adapter of its log.
var zooKeeperJars = []string{"/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"}

// netty are the jars that the server needs for TLS, and that its manifest does not all name.
func netty() []string {
	jars, _ := filepath.Glob("/usr/share/java/netty-*.jar") // the pattern is good
	return slices.DeleteFunc(jars, func(jar string) bool { return strings.ContainsAny(filepath.Base(jar), "0123456789") })
}

// StartZooKeeper starts a server with its data on disk and a tick of 100 ms, so that sessions can be as short as 200 ms
// ("tickTime" in the settings changes that). settings are lines of its configuration file.
func StartZooKeeper(t T, settings ...string) *ZooKeeper {
	t.Helper()
	return startZooKeeper(t, settings, nil)
}

// StartLargeZooKeeper starts a server that is to be measured: Java's virtual machine as it comes, with a heap that holds a million
// entries. ZooKeeper keeps all of them in memory; a heap that is nearly full has it collect garbage and do little else.
func StartLargeZooKeeper(t T) *ZooKeeper {
	t.Helper()
	return launchZooKeeper(t, []string{"-Xmx2g"}, nil, true, nil)
}

// small has a server start soon and take little memory.
var small = []string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

// StartZooKeeperTLS also has a port for TLS, on which clients must show a certificate.
func StartZooKeeperTLS(t T, pki Certificates) *ZooKeeper {
	t.Helper()
	port := FreePort(t)
	// Its port for TLS opens last, and takes seconds for its first handshake on a busy machine.
	serves := func(ctx context.Context) error { return zooKeeperShakesHands(ctx, Loopback(port), pki) }
	server := startZooKeeper(t, []string{
		fmt.Sprintf("secureClientPort=%d", port), "secureClientPortAddress=127.0.0.1",
		"serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
		"ssl.keyStore.location=" + pki.ServerBoth, "ssl.keyStore.type=PEM",
		"ssl.trustStore.location=" + pki.CA, "ssl.trustStore.type=PEM", "ssl.clientAuth=need",
	}, serves)
	server.TLSAddr = Loopback(port)
	return server
}

func startZooKeeper(t T, settings []string, also func(context.Context) error) *ZooKeeper {
	t.Helper()
	return launchZooKeeper(t, small, settings, true, also)
}

// launchZooKeeper starts a server on a virtual machine of these options, and waits until it serves if told to, in the way of also too,
// unless that is nil.
func launchZooKeeper(t T, machine, settings []string, wait bool, also func(context.Context) error) *ZooKeeper {
	t.Helper()
	java := Program(t, "zookeeperd", "java")
	for _, jar := range zooKeeperJars {
		if _, err := os.Stat(jar); err != nil {
			Missing(t, "ZooKeeper is not installed: \"make deps\" as root, or: apt-get install zookeeperd")
		}
	}
	dir := Dir(t, "")
	addr := Loopback(FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	lines := append([]string{
		"tickTime=100", "dataDir=" + filepath.Join(dir, "data"), "clientPortAddress=127.0.0.1", "clientPort=" + port,
		"admin.enableServer=false", "4lw.commands.whitelist=srvr", "maxClientCnxns=0", "maxSessionTimeout=60000",
	}, settings...)
	file := filepath.Join(dir, "zoo.cfg")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatalf("zookeeper: %v", err)
	}
	ready := started
	if wait {
		ready = func(ctx context.Context) error {
			err := zooKeeperServes(ctx, addr)
			if err == nil && also != nil {
				err = also(ctx)
			}
			return err
		}
	}
	return &ZooKeeper{Addr: addr, Process: Launch(t, Spec{
		Name: "zookeeper", Dir: dir, Path: java,
		Args: append(slices.Clone(machine),
			"-Xshare:auto",
			"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
			"-Dzookeeper.extendedTypesEnabled=true",
			"-cp", strings.Join(append(zooKeeperJars, netty()...), ":"),
			"org.apache.zookeeper.server.quorum.QuorumPeerMain", file,
		),
		Ready: ready,
	})}
}

// zooKeeperServes asks with one of its "four letter words".
func zooKeeperServes(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.Contains(string(answer), "Mode:") {
		err = fmt.Errorf("it answers %q", answer)
	}
	return err
}

// zooKeeperShakesHands connects over TLS.
func zooKeeperShakesHands(ctx context.Context, addr string, pki Certificates) error {
	config, err := physical.ClientTLS{CAFile: pki.CA, CertFile: pki.ClientCert, KeyFile: pki.ClientKey}.Load()
	if err != nil {
		return err
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
