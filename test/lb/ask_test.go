package lb

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/locum-ha/locum/test/cluster"
)

// answer is what a client got in the end.
type answer struct {
	err       error
	status    int
	body      string
	node, via string // who carried it out, and which standby passed it on
	redirects []string
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("status %d: %s", a.status, strings.TrimSpace(a.body))
}

// ask sends one request and follows redirects.
func ask(ctx context.Context, client *http.Client, method, url, token, body string) answer {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return answer{err: err}
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	var a answer
	follow := *client
	follow.CheckRedirect = func(r *http.Request, before []*http.Request) error {
		a.redirects = append(a.redirects, r.URL.String())
		if len(before) > 9 {
			return fmt.Errorf("a loop: %v", a.redirects)
		}
		return nil
	}
	response, err := follow.Do(request)
	if err != nil {
		a.err = err
		return a
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	a.err, a.body, a.status = err, string(data), response.StatusCode
	a.node, a.via = response.Header.Get("X-Locum-Node"), response.Header.Get("X-Locum-Forwarded-By")
	return a
}

// tlsAddress is where a node's API listens with TLS, beside its plain one.
func tlsAddress(n *cluster.Node) string { return n.IP + ":8443" }

// withTLS is the second listener of each node.
func withTLS(keys *certificates, more string) func(*cluster.Node) string {
	return func(n *cluster.Node) string {
		return fmt.Sprintf("listener \"tcp\" {\n  address = %q\n  tls_cert_file = %q\n  tls_key_file = %q\n"+
			"  x_forwarded_for_authorized_addrs = [\"127.0.0.0/8\"]\n}\n%s", tlsAddress(n), keys.cert, keys.key, more)
	}
}
