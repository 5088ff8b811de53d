package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/zookeeper"
)

func storeZooKeeper(ctx context.Context, s config.Storage, _ physical.Host) (physical.Stores, error) {
	return physical.Both(openZooKeeper(ctx, s.ZooKeeper))
}

func lockZooKeeper(ctx context.Context, s config.Storage, _ physical.Host) (physical.HABackend, error) {
	return openZooKeeper(ctx, s.ZooKeeper)
}

func openZooKeeper(ctx context.Context, c config.ZooKeeperStorage) (*zookeeper.Store, error) {
	password, err := fileSecret(c.Password, c.PasswordFile, c.PasswordEnv)
	if err != nil {
		return nil, err
	}
	servers := []string(c.Address)
	if len(servers) == 0 {
		servers = []string{"127.0.0.1:2181"}
	}
	clientTLS := physical.ClientTLS{
		CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ServerName: c.TLSServerName, SkipVerify: c.TLSSkipVerify,
	}
	return zookeeper.Open(ctx, zookeeper.Config{
		Servers: servers, Path: c.Path, Username: c.Username, Password: password, UseTLS: c.TLS || !clientTLS.IsZero(), TLS: clientTLS,
	})
}
