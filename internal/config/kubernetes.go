package config

// KubernetesStorage is a Lease object of the Kubernetes API; as ha_storage only. In a pod the defaults are right. See
// docs/stores/kubernetes.md.
type KubernetesStorage struct {
	// Name is the Lease's: another one for each cluster in a namespace. Default: "locum".
	Name string `hcl:"name"`

	// Namespace is where the Lease is. Default: the pod's.
	Namespace string `hcl:"namespace"`

	// Server is the URL of the API. Default: that of the cluster that the pod runs in.
	Server string `hcl:"server"`

	// TokenFile is a file with the token to show, read for each request. Default: the pod's service account's.
	TokenFile string `hcl:"token_file"`

	// TLSCAFile is a PEM file of authorities to verify the API with. Default: the pod's service account's.
	TLSCAFile string `hcl:"tls_ca_file"`

	// TLSCertFile is the PEM file of a certificate to show instead of a token.
	TLSCertFile string `hcl:"tls_cert_file"`

	// TLSKeyFile is the PEM file of that certificate's private key.
	TLSKeyFile string `hcl:"tls_key_file"`
}

// kubernetes checks a block at path.
func (c *checker) kubernetes(path string, k KubernetesStorage) {
	if k.Server != "" {
		if err := checkURL(k.Server, "http", "https"); err != nil {
			c.fault(path+".server", err.Error(), `write it such as "https://kubernetes.example.com:6443"`)
		}
		if k.Namespace == "" {
			c.fault(path+".namespace", "missing: with server, nobody tells it", `write namespace = "default"`)
		}
	}
	if (k.TLSCertFile == "") != (k.TLSKeyFile == "") {
		c.fault(path, "tls_cert_file and tls_key_file go together", "set both or none")
	}
}
