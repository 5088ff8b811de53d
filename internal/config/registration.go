package config

import (
	"fmt"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// Registration is where this node says what it is, so that clients find the active one. Exactly the settings of its Type
// apply. It is independent of storage.
type Registration struct {
	// Type is the label of the block: "consul" or "kubernetes".
	Type string `hcl:"type,label"`

	// Consul registers a service with a health check at an agent of Consul's, with one of the tags active, standby and
	// sealed; it is removed at exit.
	Consul ConsulRegistration `hcl:"consul,variant"`

	// Kubernetes labels this node's pod with locum-active, locum-sealed, locum-initialized, locum-ready ("true" or
	// "false") and locum-version; the labels are removed at exit.
	Kubernetes KubernetesRegistration `hcl:"kubernetes,variant"`
}

// ConsulRegistration registers a service at an agent of Consul's.
type ConsulRegistration struct {
	// Address is the agent's HTTP API, as in storage "consul". It should be the agent of this host. Default: that of the
	// storage "consul" or ha_storage "consul", with its token and TLS settings, else CONSUL_HTTP_ADDR of the environment, else
	// "127.0.0.1:8500".
	Address string `hcl:"address"`

	// Token is for Consul's access control: it needs service:write on the service. Default: CONSUL_HTTP_TOKEN of the
	// environment.
	Token physical.Secret `hcl:"token"`

	// TokenFile is a file with the token, read for each request.
	TokenFile string `hcl:"token_file"`

	// TokenEnv is the name of the environment variable with the token.
	TokenEnv string `hcl:"token_env"`

	// Service is the service's name. Default: "locum".
	Service string `hcl:"service"`

	// ServiceTags are added to active, standby or sealed.
	ServiceTags []string `hcl:"service_tags"`

	// ServiceAddress is the URL whose host and port are registered. Default: api_addr.
	ServiceAddress string `hcl:"service_address"`

	// Namespace is Consul Enterprise's. Default: the token's own.
	Namespace string `hcl:"namespace"`

	// Partition is Consul Enterprise's admin partition. Default: the agent's own.
	Partition string `hcl:"partition"`

	// TLSCAFile is a PEM file of authorities to verify the agent with. Default: the system's.
	TLSCAFile string `hcl:"tls_ca_file"`

	// TLSCertFile is the PEM file of a certificate to show to the agent.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file of that certificate's private key.
	TLSKeyFile string `hcl:"tls_key_file"`

	// TLSServerName is the name to expect in the agent's certificate. Default: the host that is dialled.
	TLSServerName string `hcl:"tls_server_name"`

	// TLSSkipVerify believes any agent: for trying out. Default: false.
	TLSSkipVerify bool `hcl:"tls_skip_verify"`
}

// KubernetesRegistration labels this node's pod. Its service account needs "patch" on "pods".
type KubernetesRegistration struct {
	// Namespace is the pod's. Default: the service account's.
	Namespace string `hcl:"namespace"`

	// PodName is the pod's name. Default: the host name, which it is in a pod.
	PodName string `hcl:"pod_name"`

	// Server is the URL of the API. Default: that of the cluster that the pod runs in.
	Server string `hcl:"server"`

	// TokenFile is a file with the token to show, read for each request. Default: the pod's service account's.
	TokenFile string `hcl:"token_file"`

	// TLSCAFile is a PEM file of authorities to verify the API with. Default: the pod's service account's.
	TLSCAFile string `hcl:"tls_ca_file"`
}

// registration checks the block.
func (c *checker) registration() {
	const path = "service_registration"
	switch r := c.ServiceRegistration; r.Type {
	case "":
	case "kubernetes":
		c.kubernetes(path, KubernetesStorage{Server: r.Kubernetes.Server, Namespace: r.Kubernetes.Namespace})
	case "consul":
		s := r.Consul
		c.consul(path, ConsulStorage{
			Address: s.Address, Token: s.Token, TokenFile: s.TokenFile, TokenEnv: s.TokenEnv, TLSCertFile: s.TLSCertFile, TLSKeyFile: s.TLSKeyFile,
		})
		if s.ServiceAddress != "" {
			if err := checkURL(s.ServiceAddress, "http", "https"); err != nil {
				c.fault(path+".service_address", err.Error(), `write it such as "https://a.example.com:8400"`)
			}
		}
		if strings.ContainsAny(s.Service, "/ ") {
			c.fault(path+".service", fmt.Sprintf("%q is no name of a service", s.Service), "write letters, digits and dashes")
		}
	default:
		c.fault(path, fmt.Sprintf("%q is not known", r.Type), `write "consul" or "kubernetes"`)
	}
}
