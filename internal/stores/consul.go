package stores

import (
	"context"
	"os"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/consul"
)

func storeConsul(ctx context.Context, s config.Storage, _ physical.Host) (physical.Stores, error) {
	return physical.Both(openConsul(ctx, s.Consul))
}

func lockConsul(ctx context.Context, s config.Storage, _ physical.Host) (physical.HABackend, error) {
	return openConsul(ctx, s.Consul)
}

func openConsul(ctx context.Context, c config.ConsulStorage) (*consul.Store, error) {
	settings, err := consulConfig(c)
	if err != nil {
		return nil, err
	}
	return consul.Open(ctx, settings)
}

// consulConfig also looks where Consul's own tools look.
func consulConfig(c config.ConsulStorage) (consul.Config, error) {
	token, err := secret(c.Token, c.TokenEnv)
	if err != nil {
		return consul.Config{}, err
	}
	if token == "" && c.TokenFile == "" {
		token = physical.Secret(os.Getenv("CONSUL_HTTP_TOKEN"))
	}
	address := c.Address
	if address == "" {
		address = os.Getenv("CONSUL_HTTP_ADDR")
	}
	return consul.Config{
		Address: address, Path: c.Path, Token: token, TokenFile: c.TokenFile, Datacenter: c.Datacenter, Namespace: c.Namespace, Partition: c.Partition,
		SessionNode: c.SessionNode, MinTTL: c.SessionTTLMin,
		TLS: physical.ClientTLS{
			CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ServerName: c.TLSServerName, SkipVerify: c.TLSSkipVerify,
		},
	}, nil
}
