package stores

import (
	"fmt"
	"os"

	"github.com/locum-ha/locum/physical"
)

// secret is what the configuration says, or the environment variable that it names.
func secret(given physical.Secret, env string) (physical.Secret, error) {
	if env == "" {
		return given, nil
	}
	value, ok := os.LookupEnv(env)
	if !ok || value == "" {
		return "", fmt.Errorf("the environment variable %s, which the configuration names for a secret, is not set", env)
	}
	return physical.Secret(value), nil
}
