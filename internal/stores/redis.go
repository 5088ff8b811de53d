package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/redis"
)

func lockRedis(ctx context.Context, s config.Storage, host physical.Host) (physical.HABackend, error) {
	return openRedis(ctx, s.Redis, host)
}

func openRedis(ctx context.Context, c config.RedisStorage, host physical.Host) (*redis.Store, error) {
	password, err := secret(c.Password, c.PasswordEnv)
	if err != nil {
		return nil, err
	}
	sentinel, err := secret(c.SentinelPassword, c.SentinelPasswordEnv)
	if err != nil {
		return nil, err
	}
	clientTLS := physical.ClientTLS{
		CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ServerName: c.TLSServerName, SkipVerify: c.TLSSkipVerify,
	}
	return redis.Open(ctx, redis.Config{
		Addresses: c.Address, SentinelMaster: c.SentinelMaster, Cluster: c.Cluster,
		Username: c.Username, Password: password, PasswordFile: c.PasswordFile,
		SentinelUsername: c.SentinelUsername, SentinelPassword: sentinel, Database: c.Database, Prefix: c.Prefix,
		TLS: c.TLS, ClientTLS: clientTLS, WaitReplicas: c.WaitReplicas, WaitTimeout: c.WaitTimeout, Logger: host.Logger,
	})
}
