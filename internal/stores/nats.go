package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/nats"
)

func lockNATS(ctx context.Context, s config.Storage, host physical.Host) (physical.HABackend, error) {
	return openNATS(ctx, s.NATS, host)
}

func openNATS(ctx context.Context, c config.NATSStorage, host physical.Host) (*nats.Store, error) {
	password, err := secret(c.Password, c.PasswordEnv)
	if err != nil {
		return nil, err
	}
	token, err := secret(c.Token, c.TokenEnv)
	if err != nil {
		return nil, err
	}
	clientTLS := physical.ClientTLS{
		CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ServerName: c.TLSServerName, SkipVerify: c.TLSSkipVerify,
	}
	return nats.Open(ctx, nats.Config{
		URLs: c.Address, Bucket: c.Bucket, Key: c.Key, Replicas: c.Replicas, CredentialsFile: c.CredentialsFile, NKeyFile: c.NKeyFile,
		Username: c.Username, Password: password, PasswordFile: c.PasswordFile, Token: token,
		TLS: c.TLS, ClientTLS: clientTLS, Logger: host.Logger,
	})
}
