package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// checkFiles looks at the files that a configuration names: whether they can be used, and who else can read them.
func (c *Config) checkFiles() Faults {
	check := &checker{Config: c}
	for i, l := range c.Listeners {
		path := fmt.Sprintf("listener[%d].", i)
		if !l.TLSDisable && l.TLSCertFile != "" && l.TLSKeyFile != "" {
			check.keyPair(path+"tls_cert_file", path+"tls_key_file", l.TLSCertFile, l.TLSKeyFile)
		}
		check.authorities(path+"tls_client_ca_file", l.TLSClientCAFile)
		if l.Unix() {
			check.socketFiles(path, l)
		}
	}
	for i, j := range c.Storage.Raft.RetryJoin {
		path := fmt.Sprintf("storage.retry_join[%d].", i)
		check.authorities(path+"leader_ca_cert_file", j.LeaderCACertFile)
		if j.LeaderClientCertFile != "" && j.LeaderClientKeyFile != "" {
			check.keyPair(path+"leader_client_cert_file", path+"leader_client_key_file", j.LeaderClientCertFile, j.LeaderClientKeyFile)
		}
	}
	if c.Seal.Type == "static" && c.Seal.Static.KeyFile != "" {
		if check.readable("seal.key_file", c.Seal.Static.KeyFile) {
			check.private("seal.key_file", c.Seal.Static.KeyFile)
		}
	}
	check.applicationFiles()
	check.cacheFiles()
	if name := c.Seal.Static.KeyEnv; c.Seal.Type == "static" && name != "" && os.Getenv(name) == "" {
		check.fault("seal.key_env", fmt.Sprintf("the environment has no %s", name), "set it before the start, or write key_file")
	}
	return check.faults
}

// readable reports whether the file can be opened; if not, it is a fault.
func (c *checker) readable(path, name string) bool {
	f, err := os.Open(name)
	if err == nil {
		err = f.Close()
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, fs.ErrNotExist):
		c.fault(path, fmt.Sprintf("there is no file %s", name), "write the path of an existing one")
	default:
		c.fault(path, err.Error(), "let Locum's user read it")
	}
	return false
}

// private warns of a secret that others can read.
func (c *checker) private(path, name string) {
	info, err := os.Stat(name)
	if err != nil {
		return // readable has just opened it
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		c.warn("%s: %s can be read by other users (mode %04o); chmod 600 it", path, name, mode)
	}
}

func (c *checker) keyPair(certPath, keyPath, certFile, keyFile string) {
	cert, key := c.readable(certPath, certFile), c.readable(keyPath, keyFile)
	if !cert || !key {
		return
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		c.fault(certPath, err.Error(), "write the PEM files of a certificate and of its own key")
		return
	}
	if now := time.Now(); pair.Leaf != nil && now.After(pair.Leaf.NotAfter) {
		c.warn("%s: the certificate in %s ran out on %s", certPath, certFile, pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	c.private(keyPath, keyFile)
}

func (c *checker) authorities(path, name string) {
	if name == "" || !c.readable(path, name) {
		return
	}
	data, err := os.ReadFile(name)
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(data) {
		c.fault(path, fmt.Sprintf("%s holds no certificate", name), "write a PEM file of authorities")
	}
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}
