package stores

import (
	"fmt"
	"os"
	"strings"

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

// fileSecret is what the configuration says, the content of the file, or the environment variable that it names.
func fileSecret(given physical.Secret, file, env string) (physical.Secret, error) {
	if file == "" {
		return secret(given, env)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("the file with a secret: %w", err)
	}
	value := strings.TrimSpace(string(content))
	if value == "" {
		return "", fmt.Errorf("the file %s, which the configuration names for a secret, is empty", file)
	}
	return physical.Secret(value), nil
}
