package kubernetes

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
	"os"
	"strings"
	"time"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// lease is the Lease object as a cell.
type lease struct {
	client          *http.Client
	tokenFile       string
	collection      string // URL
	namespace, name string
}

// annotation holds the lock's value.
const annotation = "locum.io/lock"

// object is what is used of a Lease; see the Kubernetes API's coordination.k8s.io/v1.
type object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       spec     `json:"spec"`
}

type metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
}

// spec is for people: kubectl shows it. Nothing is decided by it.
type spec struct {
	HolderIdentity       string `json:"holderIdentity,omitempty"`
	LeaseDurationSeconds int    `json:"leaseDurationSeconds,omitempty"`
	RenewTime            string `json:"renewTime,omitempty"`
}

const answerMax = 1 << 20 // bytes

// Read returns the value and the object's resourceVersion. Without a resourceVersion in the request the answer is
// consistent.
func (l *lease) Read(ctx context.Context) ([]byte, string, error) {
	var o object
	err := l.call(ctx, http.MethodGet, l.collection+"/"+l.name, nil, &o)
	if errors.Is(err, errNoObject) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	data, ok := o.Metadata.Annotations[annotation]
	if !ok {
		return nil, "", fmt.Errorf("the Lease %s/%s is not Locum's: give the lock another name", l.namespace, l.name)
	}
	return []byte(data), o.Metadata.ResourceVersion, nil
}

// Swap makes the object, or replaces the one of this resourceVersion.
func (l *lease) Swap(ctx context.Context, data []byte, version string) error {
	record, ttl := cell.Describe(data)
	o := object{
		APIVersion: "coordination.k8s.io/v1", Kind: "Lease",
		Metadata: metadata{
			Name: l.name, Namespace: l.namespace, ResourceVersion: version,
			Annotations: map[string]string{annotation: string(data)}, Labels: map[string]string{"app.kubernetes.io/managed-by": "locum"},
		},
		Spec: spec{
			HolderIdentity: record.Holder, LeaseDurationSeconds: int((ttl + time.Second - 1) / time.Second),
			RenewTime: time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"),
		},
	}
	method, at := http.MethodPost, l.collection
	if version != "" {
		method, at = http.MethodPut, l.collection+"/"+l.name
	}
	err := l.call(ctx, method, at, o, nil)
	if errors.Is(err, errNoObject) {
		return fmt.Errorf("%w: the Lease was deleted", cell.ErrChanged)
	}
	return err
}

// Wait watches the object until it has another resourceVersion, the API ends the watch, or ctx ends.
func (l *lease) Wait(ctx context.Context, version string) error {
	expired, err := l.watch(ctx, version, version)
	if expired && err == nil {
		_, err = l.watch(ctx, version, "") // from now on; what is there now comes first
	}
	return err
}

// watch watches from a resourceVersion ("": from now) for another one than this. expired: the API does not know that far back any more.
func (l *lease) watch(ctx context.Context, version, from string) (expired bool, err error) {
	q := url.Values{"watch": {"true"}, "fieldSelector": {"metadata.name=" + l.name}}
	if from != "" {
		q.Set("resourceVersion", from)
	}
	response, err := l.send(ctx, http.MethodGet, l.collection+"?"+q.Encode(), nil)
	if err != nil {
		return false, l.unavailable(ctx, "watch the Lease", err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusGone {
		return true, nil
	}
	if response.StatusCode != http.StatusOK {
		return false, l.answered("watch the Lease", response)
	}
	events := json.NewDecoder(response.Body)
	for {
		var e struct {
			Type   string `json:"type"`
			Object object `json:"object"`
		}
		if err := events.Decode(&e); err != nil {
			return false, context.Cause(ctx) // the API ends every watch after a while
		}
		switch {
		case e.Type == "ERROR":
			return true, nil // as a rule 410, which comes in this way, too
		case e.Type != "BOOKMARK" && e.Object.Metadata.ResourceVersion != version:
			return false, nil
		}
	}
}

var errNoObject = errors.New("no such object")

// call sends a request and decodes the answer.
func (l *lease) call(ctx context.Context, method, at string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	what := strings.ToLower(method) + " the Lease"
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	response, err := l.send(ctx, method, at, body)
	if err != nil && in != nil && !unsent(err) {
		return fmt.Errorf("%w: %s: %w", physical.ErrUnknown, what, plain(ctx, err))
	}
	if err != nil {
		return l.unavailable(ctx, what, err)
	}
	defer func() {
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, answerMax)) // best effort: what is read to its end keeps its connection
		_ = response.Body.Close()
	}()
	switch {
	case response.StatusCode == http.StatusNotFound:
		return errNoObject
	case response.StatusCode == http.StatusConflict:
		return cell.ErrChanged
	case response.StatusCode >= 500 && in != nil:
		return fmt.Errorf("%w: %s: the API answers %s", physical.ErrUnknown, what, response.Status)
	case response.StatusCode/100 != 2:
		return l.answered(what, response)
	case out == nil:
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, answerMax)).Decode(out); err != nil {
		return l.unavailable(ctx, what, err)
	}
	return nil
}

// errToken: the token could not be read.
var errToken = errors.New("token")

// unsent reports whether a request failed before anything of it was sent.
func unsent(err error) bool {
	var op *net.OpError
	return errors.Is(err, errToken) || errors.As(err, &op) && op.Op == "dial"
}

// send reads the token anew for each request.
func (l *lease) send(ctx context.Context, method, at string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if method != http.MethodGet {
		request.GetBody = nil // the HTTP library is to repeat no write by itself
	}
	if l.tokenFile != "" {
		token, err := os.ReadFile(l.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errToken, err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return l.client.Do(request)
}

// answered is an answer that is a refusal: nothing was written.
func (l *lease) answered(what string, response *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10)) // best effort: it only explains
	var status struct {
		Message string `json:"message"`
	}
	hint := ""
	if json.Unmarshal(data, &status) == nil && status.Message != "" {
		hint = ": " + status.Message
	}
	if response.StatusCode == http.StatusForbidden {
		hint += `; the service account needs get, create, update, list and watch on "leases" of coordination.k8s.io in the namespace ` + l.namespace
	}
	return fmt.Errorf("%w: %s: the API answers %s%s", physical.ErrUnavailable, what, response.Status, hint)
}

func (l *lease) unavailable(ctx context.Context, what string, err error) error {
	return fmt.Errorf("%w: %s: %w", physical.ErrUnavailable, what, plain(ctx, err))
}

// plain is the context's cause, or the error.
func plain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
