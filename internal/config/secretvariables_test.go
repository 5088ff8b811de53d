package config

import (
	"slices"
	"testing"
)

// Every setting that names a variable with a secret is found, also one that is added later: they all end in "_env".
func TestSecretVariables(t *testing.T) {
	c, err := Parse("n.hcl", []byte(`
storage "postgresql" {
  connection_url = "postgres://db.example.com/locum"
  password_env = "DB_PASSWORD"
}
seal "static" { key_env = "SEAL_KEY" }
cache { auth_token_env = "CACHE_TOKEN" }
`))
	if err != nil {
		t.Fatal(err)
	}
	if names := c.SecretVariables(); !slices.Equal(names, []string{"CACHE_RESP_PASSWORD", "CACHE_TOKEN", "DB_PASSWORD", "SEAL_KEY"}) {
		t.Errorf("%q", names)
	}
}
