package kubernetes

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Config says where the Lease is and how the API is reached. In a pod, the defaults are right.
type Config struct {
	Name      string // of the Lease: another one for each cluster in a namespace; default "locum"
	Namespace string // default: the pod's

	Server    string             // URL of the API; default: that of the cluster that the pod runs in
	TokenFile string             // read for each request; default: the service account's, if TLS shows no certificate
	TLS       physical.ClientTLS // CAFile's default: the service account's

	minTTL time.Duration // tests shorten it
}

const (
	accountDir  = "/var/run/secrets/kubernetes.io/serviceaccount/"
	defaultName = "locum"

	// callTimeout bounds one request, whatever its context allows: a connection that died silently is given up. That is so
	// with HTTP/1.1 alone: over HTTP/2 only the request is, and the next ones follow it into the same dead connection.
	callTimeout = 10 * time.Second
)

var objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`) // RFC 1123

// prepare checks the configuration and fills in what a pod knows, without a request to the API.
func (c *Config) prepare() (*http.Transport, error) {
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.minTTL == 0 {
		c.minTTL = minTTL
	}
	inPod := c.Server == ""
	if inPod {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, errors.New("this is no pod (KUBERNETES_SERVICE_HOST is not set): name the API in server")
		}
		c.Server = "https://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(c.Server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server %q is not a URL", c.Server)
	}
	c.Server = strings.TrimSuffix(c.Server, "/")
	if c.TokenFile == "" && c.TLS.CertFile == "" && inPod {
		c.TokenFile = accountDir + "token"
	}
	if c.TLS.CAFile == "" && inPod {
		c.TLS.CAFile = accountDir + "ca.crt"
	}
	if c.Namespace == "" {
		data, err := os.ReadFile(accountDir + "namespace")
		if err != nil {
			return nil, errors.New("namespace is missing, and there is no service account that tells the pod's")
		}
		c.Namespace = strings.TrimSpace(string(data))
	}
	for what, name := range map[string]string{"name": c.Name, "namespace": c.Namespace} {
		if !objectName.MatchString(name) {
			return nil, fmt.Errorf("%s %q: write lower-case letters, digits, \"-\" and \".\"", what, name)
		}
	}
	tlsConfig, err := c.TLS.Load()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = tlsConfig
	transport.ResponseHeaderTimeout = callTimeout
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return transport, nil
}
