package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/mysql"
)

func storeMySQL(ctx context.Context, s config.Storage, host physical.Host) (physical.Stores, error) {
	return physical.Both(openMySQL(ctx, s.MySQL, host))
}

func lockMySQL(ctx context.Context, s config.Storage, host physical.Host) (physical.HABackend, error) {
	return openMySQL(ctx, s.MySQL, host)
}

func openMySQL(ctx context.Context, c config.MySQLStorage, host physical.Host) (*mysql.Store, error) {
	password, err := secret(c.Password, c.PasswordEnv)
	if err != nil {
		return nil, err
	}
	clientTLS := physical.ClientTLS{
		CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ServerName: c.TLSServerName, SkipVerify: c.TLSSkipVerify,
	}
	return mysql.Open(ctx, mysql.Config{
		Addresses: c.Address, Username: c.Username, Password: password, PasswordFile: c.PasswordFile, Database: c.Database,
		Prefix: c.TablePrefix, TLS: c.TLS, ClientTLS: clientTLS, MaxConns: c.MaxConnections, SingleWriter: c.SingleWriter, Logger: host.Logger,
	})
}
