package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/dynamodb"
)

func lockDynamoDB(ctx context.Context, s config.Storage, _ physical.Host) (physical.HABackend, error) {
	c := s.DynamoDB
	key, err := secret(c.SecretKey, c.SecretKeyEnv)
	if err != nil {
		return nil, err
	}
	return dynamodb.Open(ctx, dynamodb.Config{
		Table: c.Table, Key: c.Key, Region: c.Region, Endpoint: c.Endpoint,
		AccessKey: c.AccessKey, SecretKey: key, SessionToken: c.SessionToken, TLS: physical.ClientTLS{CAFile: c.TLSCAFile},
	})
}
