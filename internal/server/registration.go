package server

import (
	"context"
	"fmt"
	"os"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/registration"
	"github.com/locum-ha/locum/physical"
)

// newRegistration is what keeps this node's entry in a catalog of services true; nil where there is none.
func (s *Server) newRegistration() (*registration.Registration, error) {
	var catalog registration.Catalog
	var err error
	switch r := s.cfg.ServiceRegistration; r.Type {
	case "":
		return nil, nil
	case "consul":
		catalog, err = s.consulCatalog(r.Consul)
	case "kubernetes":
		k := r.Kubernetes
		catalog, err = registration.NewKubernetes(registration.KubernetesConfig{
			Namespace: k.Namespace, Pod: k.PodName, URL: k.Server, TokenFile: k.TokenFile, CAFile: k.TLSCAFile,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("service_registration: %w", err)
	}
	return registration.New(registration.Config{
		Catalog: catalog, Logger: s.log.With("part", "registration"),
		State: func() registration.State {
			st := s.Status()
			return registration.State{
				Initialized: st.Initialized, Sealed: st.Sealed, Active: st.Active, NotReady: st.NotReady, Version: st.Version,
			}
		},
	})
}

// consulCatalog talks to the agent that the block names, else to the one that the storage uses.
func (s *Server) consulCatalog(c config.ConsulRegistration) (registration.Catalog, error) {
	if c.Address == "" && c.Token == "" && c.TokenFile == "" && c.TokenEnv == "" {
		for _, store := range []config.Storage{s.cfg.Storage, s.cfg.HAStorage} {
			if store.Type == "consul" {
				like := store.Consul
				c.Address, c.Token, c.TokenFile, c.TokenEnv = like.Address, like.Token, like.TokenFile, like.TokenEnv
				c.TLSCAFile, c.TLSCertFile, c.TLSKeyFile = like.TLSCAFile, like.TLSCertFile, like.TLSKeyFile
				c.TLSServerName, c.TLSSkipVerify = like.TLSServerName, like.TLSSkipVerify
			}
		}
	}
	token, err := registrationToken(c)
	if err != nil {
		return nil, err
	}
	if c.Address == "" {
		c.Address = os.Getenv("CONSUL_HTTP_ADDR")
	}
	own := c.ServiceAddress
	if own == "" {
		own = s.apiAddr
	}
	return registration.NewConsul(registration.ConsulConfig{
		Address: c.Address, Token: token, TokenFile: c.TokenFile, Namespace: c.Namespace, Partition: c.Partition,
		Service: c.Service, Tags: c.ServiceTags, APIAddr: own, NodeName: s.cfg.NodeName,
		TLS: physical.ClientTLS{
			CAFile: c.TLSCAFile, CertFile: c.TLSCertFile, KeyFile: c.TLSKeyFile, ServerName: c.TLSServerName, SkipVerify: c.TLSSkipVerify,
		},
	})
}

func registrationToken(c config.ConsulRegistration) (physical.Secret, error) {
	switch {
	case c.TokenFile != "":
		return "", nil // it is read for each request
	case c.TokenEnv != "":
		token, ok := os.LookupEnv(c.TokenEnv)
		if !ok {
			return "", fmt.Errorf("the environment variable %s, which the configuration names for a token, is not set", c.TokenEnv)
		}
		return physical.Secret(token), nil
	case c.Token != "":
		return c.Token, nil
	}
	return physical.Secret(os.Getenv("CONSUL_HTTP_TOKEN")), nil
}

// register keeps the node's entry true for as long as the node lives, and removes it then. That this failed is no reason
// for the node to end otherwise than it does.
func (s *Server) register(ctx context.Context, r *registration.Registration) {
	if err := r.Run(ctx); err != nil {
		s.log.Error("registration not removed", "error", err)
	}
}
