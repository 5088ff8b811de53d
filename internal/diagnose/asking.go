package diagnose

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/locum-ha/locum/internal/config"
)

// answer is what a node's API says of itself.
type answer struct {
	health
	code   int
	leader leader
	sent   time.Time     // by the clock here
	took   time.Duration // until the answer was there
	closed bool          // it is a TLS server that wants a client certificate, so no more is known
}

type health struct {
	Initialized *bool  `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	ServerTime  int64  `json:"server_time_utc"`
	Version     string `json:"version"`
	ClusterName string `json:"cluster_name"`
	ClusterID   string `json:"cluster_id"`
	Removed     bool   `json:"removed_from_cluster"`
}

type leader struct {
	Address     string `json:"leader_address"`
	ClusterAddr string `json:"leader_cluster_address"`
	Node        string `json:"leader_node"`
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// errStranger: something answers, and it is no node.
var errStranger = errors.New("what answers there is not Locum")

// asker asks one node.
type asker struct {
	base  string
	http  *http.Client
	token string
}

func newAsker(base string, tlsConfig *tls.Config) *asker {
	transport := &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true} // no proxy: it is the way between nodes that counts
	return &asker{base: strings.TrimRight(base, "/"), http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// do asks once; out is filled from JSON.
func (a *asker) do(ctx context.Context, method, path string, in, out any) (code int, err error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+"/v1/"+path, body)
	if err != nil {
		return 0, err
	}
	if a.token != "" {
		req.Header.Set("X-Vault-Token", a.token)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if json.Unmarshal(data, out) != nil {
		return resp.StatusCode, errStranger
	}
	return resp.StatusCode, nil
}

// look asks a node how it is.
func (r *run) look(a *asker) (*answer, error) {
	ctx, cancel := r.within()
	defer cancel()
	got := &answer{sent: r.Now()}
	start := time.Now()
	var err error
	got.code, err = a.do(ctx, http.MethodGet, "sys/health", nil, &got.health)
	got.took = time.Since(start)
	switch {
	case err != nil && strings.Contains(err.Error(), "certificate required"):
		got.closed = true
		return got, nil
	case err != nil:
		return nil, fmt.Errorf("%w", reasonOf(ctx, err))
	case got.Initialized == nil:
		return nil, errStranger
	}
	if *got.Initialized && !got.Sealed {
		_, _ = a.do(ctx, http.MethodGet, "sys/leader", nil, &got.leader) // without it less is known
	}
	return got, nil
}

// reasonOf is why something ended: the context's cause if it was that.
func reasonOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return err
}

// unreachable says in plain words why something cannot be reached, and what to do.
func unreachable(err error, address string) (what, do string) {
	var dns *net.DNSError
	var refused *tls.CertificateVerificationError
	var name x509.HostnameError
	var timeout net.Error
	text := err.Error()
	switch {
	case errors.As(err, &dns):
		return "its name leads nowhere", "correct the name, or let DNS or /etc/hosts know it"
	case errors.As(err, &name):
		return "its certificate is refused: " + plainTLS(err), "give that node a certificate with this name, or set leader_tls_servername to one of its names"
	case errors.As(err, &refused):
		return "its certificate is refused: " + plainTLS(refused.Err), "name the file of its authority with leader_ca_cert_file, and check that node's certificate (locum operator diagnose there)"
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "it speaks plain HTTP", "write its address with http://, or give that node a certificate"
	case errors.Is(err, errStranger):
		return errStranger.Error(), "check the address, and what is in between: a proxy must pass requests through as they are"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there (connection refused)", "start the node there (its log says why it does not start), or correct the address"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to that host (" + text + ")", "check the network between the hosts, and the address"
	case strings.Contains(text, "no answer within"), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it does not answer in time", "check that the host is up, and that no firewall swallows what goes to " + address
	}
	return text, "check the address, the network in between, and the log of that node"
}

// joinTLS is how this node would ask another one to let it in.
func (r *run) joinTLS(j config.RetryJoin) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: j.LeaderTLSServerName}
	pool := x509.NewCertPool()
	if r.addAuthorities(pool, j) {
		cfg.RootCAs = pool
	}
	if pair, err := tls.LoadX509KeyPair(j.LeaderClientCertFile, j.LeaderClientKeyFile); err == nil {
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg
}

// clusterPort makes a handshake with a cluster port, for raft. What this node would show there only an unsealed one has;
// the other side's part is enough to see that it is one, and whose.
func (r *run) clusterPort(address string) (id string, err error) {
	ctx, cancel := r.within()
	defer cancel()
	// Whose certificate it is cannot be verified without the cluster's authority; nothing is sent.
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{r.RaftALPN}}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", reasonOf(ctx, err)
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	if state.NegotiatedProtocol != r.RaftALPN || len(state.PeerCertificates) == 0 {
		return "", errStranger
	}
	for _, u := range state.PeerCertificates[0].URIs {
		if u.Scheme == "locum" && u.Host == "node" {
			return strings.TrimPrefix(u.Path, "/"), nil
		}
	}
	return "", errStranger
}

// portTrouble says in plain words what is wrong with a cluster port.
func portTrouble(err error, address string) (what, do string) {
	switch text := err.Error(); {
	case strings.Contains(text, "no application protocol"):
		return "it is open, but not to raft: the node there just starts or ends, or something in between ends TLS", "look at that node's log; let TCP through to the cluster port as it is"
	case errors.Is(err, errStranger), strings.Contains(text, "first record does not look like a TLS handshake"):
		return "what answers there is no cluster port: something in between ends TLS, or the port is another one", "let TCP through to the cluster port as it is; check cluster_addr and cluster_address"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there (connection refused)", "check cluster_addr and cluster_address of that node; a sealed node has its cluster port closed"
	}
	return unreachable(err, address)
}
