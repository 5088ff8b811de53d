package stores

import (
	"context"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/kubernetes"
)

func lockKubernetes(ctx context.Context, s config.Storage, _ physical.Host) (physical.HABackend, error) {
	c := s.Kubernetes
	return kubernetes.Open(ctx, kubernetes.Config{
		Name: c.Name, Namespace: c.Namespace, Server: c.Server, TokenFile: c.TokenFile,
		TLS: physical.ClientTLS{CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile},
	})
}
