package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/etcd"
)

func storeEtcd(ctx context.Context, s config.Storage, host physical.Host) (physical.Stores, error) {
	return physical.Both(openEtcd(ctx, s.Etcd, host))
}

func lockEtcd(ctx context.Context, s config.Storage, host physical.Host) (physical.HABackend, error) {
	return openEtcd(ctx, s.Etcd, host)
}

func openEtcd(ctx context.Context, c config.EtcdStorage, host physical.Host) (*etcd.Store, error) {
	password, err := fileSecret(c.Password, c.PasswordFile, c.PasswordEnv)
	if err != nil {
		return nil, err
	}
	endpoints := []string(c.Endpoints)
	if len(endpoints) == 0 {
		endpoints = []string{"http://127.0.0.1:2379"}
	}
	return etcd.Open(ctx, etcd.Config{
		Endpoints: endpoints, Path: c.Path, Username: c.Username, Password: password, Logger: host.Logger,
		TLS: physical.ClientTLS{
			CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ServerName: c.TLSServerName, SkipVerify: c.TLSSkipVerify,
		},
	})
}
