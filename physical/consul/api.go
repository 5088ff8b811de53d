package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// maxConns is how many connections are open to the agent at most: half of its http_max_conns_per_client, beyond which it
// closes new ones without a word.
const maxConns = 100

// api is Consul's HTTP API, as far as a store needs it.
type api struct {
	base  string // scheme and host
	token *tokens
	where url.Values // datacenter, namespace, partition
	http  *http.Transport
	conns conns.Set
}

func newAPI(config Config) (*api, error) {
	u, err := url.Parse(config.Address)
	if err != nil {
		return nil, err
	}
	a := &api{base: u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/"), where: url.Values{}}
	if a.token, err = newTokens(config.Token, config.TokenFile); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"dc": config.Datacenter, "ns": config.Namespace, "partition": config.Partition} {
		if value != "" {
			a.where.Set(name, value)
		}
	}
	a.http = &http.Transport{
		DialContext: a.conns.Dial, MaxConnsPerHost: maxConns, MaxIdleConnsPerHost: maxConns,
		IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second, DisableCompression: true,
	}
	switch u.Scheme {
	case "unix":
		a.base = "http://localhost"
		a.http.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return a.conns.Dial(ctx, "unix", u.Path) }
	case "https":
		if a.http.TLSClientConfig, err = config.TLS.Load(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *api) close() {
	a.conns.Close()
	a.http.CloseIdleConnections()
}

// answer is what Consul said.
type answer struct {
	status int
	index  uint64 // X-Consul-Index
	body   []byte
}

// errSent marks a failure after which the request may have reached Consul.
var errSent = errors.New("sent, and no answer came")

// do makes one request. An error means that no answer came; one that is not errSent, that nothing was sent.
func (a *api) do(ctx context.Context, method, path string, query url.Values, body []byte) (answer, error) {
	u := a.base + path
	if all := a.query(query); all != "" {
		u += "?" + all
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token := a.token.now(); token != "" {
		req.Header.Set("X-Consul-Token", token.Reveal())
	}
	resp, err := a.http.RoundTrip(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return answer{}, err
		}
		return answer{}, fmt.Errorf("%w: %w", errSent, err)
	}
	defer resp.Body.Close()
	out := answer{status: resp.StatusCode}
	out.index, _ = strconv.ParseUint(resp.Header.Get("X-Consul-Index"), 10, 64)
	if out.body, err = io.ReadAll(resp.Body); err != nil {
		return answer{}, fmt.Errorf("%w: %w", errSent, err)
	}
	return out, nil
}

func (a *api) query(own url.Values) string {
	all := make([]string, 0, 2)
	for _, values := range []url.Values{a.where, own} {
		if len(values) > 0 {
			all = append(all, values.Encode())
		}
	}
	return strings.Join(all, "&")
}

// failure translates what kept a request from being carried out. A write that may have been has an unknown outcome.
func failure(ctx context.Context, err error, write bool) error {
	kind := physical.ErrUnavailable
	if write && errors.Is(err, errSent) {
		kind = physical.ErrUnknown
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w: %w", kind, cause)
	}
	return fmt.Errorf("%w: %v", kind, err)
}

// refusal translates an answer that is none of those expected.
func refusal(a answer, write bool) error {
	text := strings.TrimSpace(string(a.body[:min(len(a.body), 300)]))
	kind := physical.ErrUnavailable
	switch {
	case a.status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: Consul's txn_max_req_len is lower than its default: %s", physical.ErrTooLarge, text)
	case a.status == http.StatusForbidden:
		return refusedToken(text)
	case a.status >= 500 && write && !strings.Contains(text, "No cluster leader") && !strings.Contains(text, "No known Consul servers"):
		kind = physical.ErrUnknown // perhaps leadership was lost while it was being committed
	}
	return fmt.Errorf("%w: Consul answers %d: %s", kind, a.status, text)
}

func refusedToken(text string) error {
	return fmt.Errorf("%w: Consul refuses the token: %s (it needs key:write on the path and session:write on the agent's node)", physical.ErrUnavailable, text)
}

// denied returns the error for a transaction that the token may not make. Consul answers it as one whose checks failed.
func denied(failed []opError) error {
	for _, f := range failed {
		if strings.Contains(f.What, "Permission denied") || strings.Contains(f.What, "ACL not found") {
			return refusedToken(f.What)
		}
	}
	return nil
}

// pair is an entry of the key-value store.
type pair struct {
	Key         string
	Value       []byte
	Session     string
	ModifyIndex uint64
}

var consistent = url.Values{"consistent": {""}}

// kvPath is the URL path of a key.
func kvPath(key string) string { return (&url.URL{Path: "/v1/kv/" + key}).EscapedPath() }

// get reads an entry; nil if there is none. index is what a blocking query waits for a change of.
func (a *api) get(ctx context.Context, key string, query url.Values) (p *pair, index uint64, err error) {
	got, err := a.do(ctx, http.MethodGet, kvPath(key), query, nil)
	if err != nil {
		return nil, 0, failure(ctx, err, false)
	}
	switch got.status {
	case http.StatusNotFound:
		return nil, got.index, nil
	case http.StatusOK:
	default:
		return nil, 0, refusal(got, false)
	}
	var pairs []pair
	if err := json.Unmarshal(got.body, &pairs); err != nil || len(pairs) != 1 {
		return nil, 0, fmt.Errorf("%w: Consul's answer is not an entry: %v", physical.ErrUnavailable, err)
	}
	return &pairs[0], got.index, nil
}

// op is one operation of a transaction.
type op struct {
	Verb    string
	Key     string
	Value   []byte `json:",omitempty"`
	Index   uint64 `json:",omitempty"`
	Session string `json:",omitempty"`

	Namespace string `json:",omitempty"`
	Partition string `json:",omitempty"`
}

// opError says which operation failed.
type opError struct {
	OpIndex int
	What    string
}

// maxBody is Consul's txn_max_req_len unless configured.
const maxBody = 512 << 10

// txn carries out all ops or none. failed names those that did not hold; then none was carried out.
func (a *api) txn(ctx context.Context, ops []op) (failed []opError, err error) {
	type wrapped struct{ KV op }
	all := make([]wrapped, len(ops))
	write := false
	for i, o := range ops {
		o.Namespace, o.Partition = a.where.Get("ns"), a.where.Get("partition")
		all[i] = wrapped{o}
		write = write || o.Verb != "get" && !strings.HasPrefix(o.Verb, "check-")
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // it would make six bytes of one
	if err := encoder.Encode(all); err != nil {
		return nil, fmt.Errorf("%w: %v", physical.ErrInvalid, err)
	}
	if body.Len() > maxBody {
		return nil, &physical.TooLargeError{What: "bytes in a commit", Size: body.Len(), Limit: maxBody}
	}
	query := consistent
	if write {
		query = nil
	}
	got, err := a.do(ctx, http.MethodPut, "/v1/txn", query, body.Bytes())
	if err != nil {
		return nil, failure(ctx, err, write)
	}
	switch got.status {
	case http.StatusOK:
		return nil, nil
	case http.StatusConflict:
		var reply struct{ Errors []opError }
		if err := json.Unmarshal(got.body, &reply); err != nil || len(reply.Errors) == 0 {
			return nil, fmt.Errorf("%w: Consul refuses a transaction and does not say why: %v", physical.ErrUnavailable, err)
		}
		return reply.Errors, denied(reply.Errors)
	}
	return nil, refusal(got, write)
}
