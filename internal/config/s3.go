package config

import "github.com/locum-ha/locum/physical"

// S3Storage is a bucket of Amazon S3, or of a compatible service that honours conditional writes. See docs/stores/s3.md.
type S3Storage struct {
	// Bucket is the bucket's name. It must exist. Required.
	Bucket string `hcl:"bucket"`

	// Path is what the objects' names begin with: another one for each cluster in a bucket. Default: "locum".
	Path string `hcl:"path"`

	// Region is the bucket's region. Default: the environment's or the shared configuration's, else "us-east-1".
	Region string `hcl:"region"`

	// Endpoint is the URL of a compatible service. Default: Amazon's for the region.
	Endpoint string `hcl:"endpoint"`

	// S3ForcePathStyle puts the bucket's name into the path instead of the host's name. Default: false.
	S3ForcePathStyle bool `hcl:"s3_force_path_style"`

	// AccessKey is the id of the credentials. Default: what the environment (AWS_ACCESS_KEY_ID), the shared files or the
	// instance's role give.
	AccessKey string `hcl:"access_key"`

	// SecretKey is the secret of the credentials.
	SecretKey physical.Secret `hcl:"secret_key"`

	// SecretKeyEnv is the name of the environment variable with the secret of the credentials.
	SecretKeyEnv string `hcl:"secret_key_env"`

	// SessionToken goes with temporary credentials.
	SessionToken physical.Secret `hcl:"session_token"`

	// TLSCAFile is a PEM file of authorities to verify the service with. Default: the system's.
	TLSCAFile string `hcl:"tls_ca_file"`
}

// s3 checks a block at path: "storage" or "ha_storage".
func (c *checker) s3(path string, s S3Storage) {
	if s.Bucket == "" {
		c.fault(path+".bucket", "missing", `write bucket = "locum"`)
	}
	c.awsKeys(path, s.AccessKey, s.SecretKey, s.SecretKeyEnv)
	if s.Endpoint != "" {
		if err := checkURL(s.Endpoint, "http", "https"); err != nil {
			c.fault(path+".endpoint", err.Error(), `write it such as "https://s3.example.com"`)
		}
	}
}

// awsKeys finds half a pair of credentials, or two secrets.
func (c *checker) awsKeys(path, access string, secret physical.Secret, env string) {
	if secret != "" && env != "" {
		c.fault(path+".secret_key_env", "more than one secret", "write one of secret_key and secret_key_env")
	}
	if (access == "") != (secret == "" && env == "") {
		c.fault(path+".access_key", "access_key and its secret go together", "write both, or none: then the environment, the shared files or the instance's role are asked")
	}
}
