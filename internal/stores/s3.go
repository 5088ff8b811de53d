package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/s3"
)

func storeS3(ctx context.Context, s config.Storage, host physical.Host) (physical.Stores, error) {
	return physical.Both(openS3(ctx, s.S3, host))
}

func lockS3(ctx context.Context, s config.Storage, host physical.Host) (physical.HABackend, error) {
	return openS3(ctx, s.S3, host)
}

func openS3(ctx context.Context, c config.S3Storage, host physical.Host) (*s3.Store, error) {
	key, err := secret(c.SecretKey, c.SecretKeyEnv)
	if err != nil {
		return nil, err
	}
	return s3.Open(ctx, s3.Config{
		Bucket: c.Bucket, Path: c.Path, Region: c.Region, Endpoint: c.Endpoint, PathStyle: c.S3ForcePathStyle,
		AccessKey: c.AccessKey, SecretKey: key, SessionToken: c.SessionToken,
		TLS: physical.ClientTLS{CAFile: c.TLSCAFile}, Logger: host.Logger,
	})
}
