package config

import "github.com/locum-ha/locum/physical"

// DynamoDBStorage is an item of a DynamoDB table; as ha_storage only. See docs/stores/dynamodb.md.
type DynamoDBStorage struct {
	// Table is the table's name. It is made, on demand capacity, if it is not there and the credentials allow that; its
	// partition key is the string "Key". Default: "locum".
	Table string `hcl:"table"`

	// Key is the item's: another one for each cluster in a table. Default: "locum".
	Key string `hcl:"key"`

	// Region is the table's region. Default: the environment's or the shared configuration's, else "us-east-1".
	Region string `hcl:"region"`

	// Endpoint is the URL of another service that speaks the protocol. Default: Amazon's for the region.
	Endpoint string `hcl:"endpoint"`

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

// dynamoDB checks a block at path.
func (c *checker) dynamoDB(path string, d DynamoDBStorage) {
	c.awsKeys(path, d.AccessKey, d.SecretKey, d.SecretKeyEnv)
	if d.Endpoint != "" {
		if err := checkURL(d.Endpoint, "http", "https"); err != nil {
			c.fault(path+".endpoint", err.Error(), `write it such as "https://dynamodb.example.com"`)
		}
	}
}
