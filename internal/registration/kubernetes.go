package registration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// KubernetesConfig says which pod gets labels. What a pod finds out by itself may be left out.
type KubernetesConfig struct {
	// Namespace and Pod are the pod's. Default: what the service account's directory and the host name say.
	Namespace, Pod string
	// URL is the API server's. Default: from KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT of the environment.
	URL string
	// Dir is the service account's: token, ca.crt and namespace. The account may patch pods. Default:
	// /var/run/secrets/kubernetes.io/serviceaccount.
	Dir string
	// TokenFile is read for each request, since a token is renewed, CAFile once: it vouches for the server. Default: those in Dir, and
	// the system's authorities if it has none.
	TokenFile, CAFile string
}

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// The labels of the pod. A service that selects locum-active=true leads to the active node.
const (
	labelActive      = "locum-active"
	labelSealed      = "locum-sealed"
	labelInitialized = "locum-initialized"
	labelReady       = "locum-ready"
	labelVersion     = "locum-version"
)

// Kubernetes keeps labels of this node's pod true.
type Kubernetes struct {
	url       string // of the pod
	tokenFile string
	http      *http.Client
}

var _ Catalog = (*Kubernetes)(nil)

// NewKubernetes reads what the pod is told by its environment.
func NewKubernetes(config KubernetesConfig) (*Kubernetes, error) {
	if config.Dir == "" {
		config.Dir = serviceAccount
	}
	if config.URL == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, errors.New("kubernetes: this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
		}
		config.URL = "https://" + net.JoinHostPort(host, port)
	}
	var err error
	if config.Namespace == "" {
		namespace, err := os.ReadFile(filepath.Join(config.Dir, "namespace"))
		if err != nil {
			return nil, fmt.Errorf("kubernetes: which namespace is it? write it, or mount the service account: %w", err)
		}
		config.Namespace = strings.TrimSpace(string(namespace))
	}
	if config.Pod == "" {
		if config.Pod, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("kubernetes: which pod is it? %w", err)
		}
	}
	if config.TokenFile == "" {
		config.TokenFile = filepath.Join(config.Dir, "token")
	}
	authorities, err := config.authorities()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: time.Minute, Protocols: new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true) // over HTTP/2 all would follow each other into a connection that died silently
	return &Kubernetes{
		url:       strings.TrimRight(config.URL, "/") + "/api/v1/namespaces/" + url.PathEscape(config.Namespace) + "/pods/" + url.PathEscape(config.Pod),
		tokenFile: config.TokenFile, http: &http.Client{Transport: transport},
	}, nil
}

// authorities vouch for the server; nil: the system's.
func (c KubernetesConfig) authorities() (*x509.CertPool, error) {
	file := c.CAFile
	if file == "" {
		file = filepath.Join(c.Dir, "ca.crt")
	}
	pem, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && c.CAFile == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, nil
}

// Tell sets the labels.
func (k *Kubernetes) Tell(ctx context.Context, s State) error {
	return k.patch(ctx, map[string]any{
		labelActive: strconv.FormatBool(s.Active && !s.Sealed), labelSealed: strconv.FormatBool(s.Sealed),
		labelInitialized: strconv.FormatBool(s.Initialized), labelReady: strconv.FormatBool(s.NotReady == ""), labelVersion: labelValue(s.Version),
	})
}

// Alive does nothing: labels do not run out. If the node crashes, its pod's readiness says so.
func (k *Kubernetes) Alive(context.Context, State) error { return nil }

// Remove takes the labels away.
func (k *Kubernetes) Remove(ctx context.Context) error {
	err := k.patch(ctx, map[string]any{labelActive: nil, labelSealed: nil, labelInitialized: nil, labelReady: nil, labelVersion: nil})
	k.http.CloseIdleConnections()
	return err
}

// labelValue makes a version fit for a label: letters, digits, "-", "_" and ".", at most 63 of them.
func labelValue(version string) string {
	fit := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, version)
	return strings.Trim(fit[:min(len(fit), 63)], "-_.")
}

// patch merges labels into the pod's, those that are nil away.
func (k *Kubernetes) patch(ctx context.Context, labels map[string]any) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, k.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	token, err := os.ReadFile(k.tokenFile)
	if err != nil {
		return fmt.Errorf("the service account's token: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := k.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("Kubernetes refuses (%s): the service account needs a role with \"patch\" on \"pods\": %s", resp.Status, bytes.TrimSpace(text))
	case http.StatusNotFound:
		return fmt.Errorf("Kubernetes knows no such pod: write its name and namespace: %s", bytes.TrimSpace(text))
	}
	return fmt.Errorf("Kubernetes answers %s: %s", resp.Status, bytes.TrimSpace(text))
}
