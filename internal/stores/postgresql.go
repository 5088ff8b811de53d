package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/postgres"
)

func storePostgreSQL(ctx context.Context, s config.Storage, host physical.Host) (physical.Stores, error) {
	return physical.Both(openPostgreSQL(ctx, s.PostgreSQL, host))
}

func lockPostgreSQL(ctx context.Context, s config.Storage, host physical.Host) (physical.HABackend, error) {
	return openPostgreSQL(ctx, s.PostgreSQL, host)
}

func openPostgreSQL(ctx context.Context, p config.PostgreSQLStorage, host physical.Host) (*postgres.Store, error) {
	password, err := secret("", p.PasswordEnv)
	if err != nil {
		return nil, err
	}
	return postgres.Open(ctx, postgres.Config{
		URL: p.ConnectionURL, ListenURL: p.ListenURL, Password: password, PasswordFile: p.PasswordFile,
		Schema: p.Schema, Prefix: p.TablePrefix, MaxConns: p.MaxConnections, Pooler: postgres.Pooler(p.Pooler), Logger: host.Logger,
	})
}
