package physical_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locum-ha/locum/physical"
)

// A secret is in no log, error or encoding, whichever way it is printed.
func TestSecretPrintsStars(t *testing.T) {
	config := struct {
		User     string
		Password physical.Secret
	}{"u", "hunter2"}
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("opened", "config", config, "password", config.Password)
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q %x %d", config, config, config, config.Password, config.Password, config.Password, config.Password)
	for _, s := range []string{printed, log.String(), string(text), fmt.Errorf("bad: %v", config).Error()} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) || !strings.Contains(s, "***") {
			t.Errorf("the secret shows in %s", s)
		}
	}
	if config.Password.Reveal() != "hunter2" {
		t.Errorf("Reveal gives %q", config.Password.Reveal())
	}
}

// What is wrong with TLS files is said when a store is opened, with the file's name.
func TestClientTLS(t *testing.T) {
	if c, err := (physical.ClientTLS{}).Load(); err != nil || c.RootCAs != nil || c.InsecureSkipVerify {
		t.Errorf("nothing set: %+v, %v", c, err)
	}
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]physical.ClientTLS{
		"no file":          {CAFile: junk + "x"},
		"no certificate":   {CAFile: junk},
		"key alone":        {KeyFile: junk},
		"a pair of junk":   {CertFile: junk, KeyFile: junk},
		"certificate only": {CertFile: junk},
	} {
		if _, err := c.Load(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
