package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// nodeClient is the npm package node-vault with its defaults.
type nodeClient struct {
	driver                     *driver
	endpoint, token, namespace string
	fresh                      bool // makes a client of its own for each call
}

// openNode skips the test where there is no node-vault to be had; where everything must run it fails.
func openNode(t testing.TB, address, token, namespace string) client {
	t.Helper()
	d, err := node()
	switch {
	case err == nil:
		return nodeClient{d, address, token, namespace, false}
	case os.Getenv("LOCUM_NO_SKIP") != "" || os.Getenv("CI") != "":
		t.Fatalf("this must run here: %v", err)
	default:
		t.Skipf("no node-vault: %v", err)
	}
	return nil
}

// call calls a method of the client and decodes what it resolves to.
func (n nodeClient) call(ctx context.Context, out any, method string, args ...any) error {
	if args == nil {
		args = []any{}
	}
	request := object{"endpoint": n.endpoint, "token": n.token, "fresh": n.fresh, "call": method, "args": args}
	if n.namespace != "" {
		request["namespace"] = n.namespace
	}
	answer, err := n.driver.call(ctx, request)
	if err != nil {
		return err
	}
	if e := answer.Error; e != nil {
		if e.Status == 0 {
			return fmt.Errorf("node-vault: %s %s", e.Code, e.Message)
		}
		var body struct {
			Errors []string `json:"errors"`
		}
		_ = json.Unmarshal(e.Body, &body) // a body that is not an object has no sentences
		if len(body.Errors) > 0 && body.Errors[0] != e.Message {
			return fmt.Errorf("the error's message is %q, the body's %q", e.Message, body.Errors[0])
		}
		return &nodeFailure{&failure{e.Status, body.Errors}, e.Body}
	}
	if out == nil || len(answer.Result) == 0 || string(answer.Result) == `""` { // 204
		return nil
	}
	return json.Unmarshal(answer.Result, out)
}

// nodeFailure is a failure with the body that came with it.
type nodeFailure struct {
	*failure
	body json.RawMessage
}

func (f *nodeFailure) Unwrap() error { return f.failure }

func (n nodeClient) Health(ctx context.Context) (out health, err error) {
	err = n.call(ctx, &out, "health")
	return out, err
}

func (n nodeClient) Leader(ctx context.Context) (out leader, err error) {
	err = n.call(ctx, &out, "leader")
	return out, err
}

func (n nodeClient) Members(ctx context.Context) ([]member, error) {
	var out struct {
		Data struct {
			Nodes []member `json:"nodes"`
		} `json:"data"`
	}
	err := n.call(ctx, &out, "read", "sys/ha-status")
	return out.Data.Nodes, err
}

func (n nodeClient) SealStatus(ctx context.Context) (out sealStatus, err error) {
	err = n.call(ctx, &out, "status")
	return out, err
}

func (n nodeClient) Unseal(ctx context.Context, key string) (out sealStatus, err error) {
	err = n.call(ctx, &out, "unseal", object{"key": key})
	return out, err
}

func (n nodeClient) ResetUnseal(ctx context.Context) (out sealStatus, err error) {
	err = n.call(ctx, &out, "unseal", object{"reset": true})
	return out, err
}

func (n nodeClient) Initialized(ctx context.Context) (bool, error) {
	var out struct{ Initialized bool }
	err := n.call(ctx, &out, "initialized")
	return out.Initialized, err
}

func (n nodeClient) Init(ctx context.Context, shares, threshold int) ([]string, string, error) {
	var out struct {
		Keys  []string `json:"keys"`
		Token string   `json:"root_token"`
	}
	err := n.call(ctx, &out, "init", object{"secret_shares": shares, "secret_threshold": threshold})
	return out.Keys, out.Token, err
}

func (n nodeClient) Seal(ctx context.Context) error { return n.call(ctx, nil, "seal") }

func (n nodeClient) StepDown(ctx context.Context) error { return n.call(ctx, nil, "stepDown") }

// nodeVersion is one version as it stands in the JSON.
type nodeVersion struct {
	Version   int    `json:"version"`
	Created   string `json:"created_time"`
	Deleted   string `json:"deletion_time"`
	Destroyed bool   `json:"destroyed"`
	Custom    object `json:"custom_metadata"`
}

func (v nodeVersion) entry() (entry, error) {
	out := entry{Version: v.Version, Destroyed: v.Destroyed, Custom: v.Custom}
	var err error
	if out.Created, err = time.Parse(time.RFC3339Nano, v.Created); err == nil && v.Deleted != "" {
		out.Deleted, err = time.Parse(time.RFC3339Nano, v.Deleted)
	}
	return out, err
}

// version calls a method that answers with a version's metadata.
func (n nodeClient) version(ctx context.Context, method string, args ...any) (entry, error) {
	var out struct{ Data nodeVersion }
	if err := n.call(ctx, &out, method, args...); err != nil {
		return entry{}, err
	}
	return out.Data.entry()
}

func (n nodeClient) Put(ctx context.Context, path string, data object, cas int) (entry, error) {
	body := object{"data": data}
	if cas >= 0 {
		body["options"] = object{"cas": cas}
	}
	return n.version(ctx, "write", "secret/data/"+path, body)
}

func (n nodeClient) Patch(ctx context.Context, path string, data object) (entry, error) {
	return n.version(ctx, "update", "secret/data/"+path, object{"data": data})
}

func (n nodeClient) Get(ctx context.Context, path string, version int) (entry, error) {
	address := "secret/data/" + path
	if version > 0 {
		address += fmt.Sprintf("?version=%d", version)
	}
	var out struct {
		Data struct {
			Data     object
			Metadata nodeVersion
		}
	}
	err := n.call(ctx, &out, "read", address)
	var gone *nodeFailure
	if errors.As(err, &gone) && gone.Status == 404 && json.Unmarshal(gone.body, &out) == nil && out.Data.Metadata.Version > 0 {
		err = nil // for this client what was deleted is an error, whose body tells the version
	}
	if err != nil {
		return entry{}, err
	}
	e, err := out.Data.Metadata.entry()
	e.Data = out.Data.Data
	return e, err
}

func (n nodeClient) Delete(ctx context.Context, path string, versions ...int) error {
	if len(versions) == 0 {
		return n.call(ctx, nil, "delete", "secret/data/"+path)
	}
	return n.call(ctx, nil, "write", "secret/delete/"+path, object{"versions": versions})
}

func (n nodeClient) Undelete(ctx context.Context, path string, versions ...int) error {
	return n.call(ctx, nil, "write", "secret/undelete/"+path, object{"versions": versions})
}

func (n nodeClient) Destroy(ctx context.Context, path string, versions ...int) error {
	return n.call(ctx, nil, "destroySecretVersions", object{"path": path, "versions": versions})
}

func (n nodeClient) List(ctx context.Context, path string) ([]string, error) {
	var out struct{ Data struct{ Keys []string } }
	err := n.call(ctx, &out, "list", strings.TrimSuffix("secret/metadata/"+path, "/"))
	return out.Data.Keys, err
}

func (n nodeClient) Metadata(ctx context.Context, path string) (metadata, error) {
	var out struct {
		Data struct {
			Current     int                    `json:"current_version"`
			Oldest      int                    `json:"oldest_version"`
			MaxVersions int                    `json:"max_versions"`
			CASRequired bool                   `json:"cas_required"`
			DeleteAfter string                 `json:"delete_version_after"`
			Custom      object                 `json:"custom_metadata"`
			Versions    map[string]nodeVersion `json:"versions"`
		}
	}
	if err := n.call(ctx, &out, "read", "secret/metadata/"+path); err != nil {
		return metadata{}, err
	}
	d := out.Data
	after, err := time.ParseDuration(d.DeleteAfter)
	m := metadata{d.Current, d.Oldest, d.MaxVersions, d.CASRequired, after, d.Custom, map[string]entry{}}
	for number, version := range d.Versions {
		e, bad := version.entry()
		_, bad2 := fmt.Sscan(number, &e.Version)
		err = errors.Join(err, bad, bad2)
		m.Versions[number] = e
	}
	return m, err
}

func (n nodeClient) PutMetadata(ctx context.Context, path string, s settings) error {
	return n.call(ctx, nil, "write", "secret/metadata/"+path,
		object{"max_versions": s.MaxVersions, "cas_required": s.CASRequired, "custom_metadata": s.Custom})
}

func (n nodeClient) PatchMetadata(ctx context.Context, path string, maxVersions int, custom object) error {
	body := object{"custom_metadata": custom}
	if maxVersions > 0 {
		body["max_versions"] = maxVersions
	}
	return n.call(ctx, nil, "update", "secret/metadata/"+path, body)
}

func (n nodeClient) DeleteMetadata(ctx context.Context, path string) error {
	return n.call(ctx, nil, "delete", "secret/metadata/"+path)
}

// data calls a method and gives the answer's data. What is not there is an error for this client, and nothing for the
// others.
func (n nodeClient) data(ctx context.Context, method string, args ...any) (object, error) {
	var out struct{ Data object }
	err := n.call(ctx, &out, method, args...)
	var f *failure
	if errors.As(err, &f) && f.Status == 404 && len(f.Errors) == 0 {
		err = nil
	}
	return out.Data, err
}

func (n nodeClient) Read(ctx context.Context, path string) (object, error) {
	return n.data(ctx, "read", path)
}

func (n nodeClient) Write(ctx context.Context, path string, data object) (object, error) {
	return n.data(ctx, "write", path, data)
}

func (n nodeClient) Remove(ctx context.Context, path string) error {
	return n.call(ctx, nil, "delete", path)
}

// auth calls a method that answers with a token in "auth".
func (n nodeClient) auth(ctx context.Context, method string, args ...any) (token, error) {
	var out struct {
		Auth struct {
			ID        string   `json:"client_token"`
			Accessor  string   `json:"accessor"`
			Policies  []string `json:"policies"`
			TTL       int      `json:"lease_duration"`
			Renewable bool     `json:"renewable"`
		}
	}
	err := n.call(ctx, &out, method, args...)
	return token(out.Auth), err
}

func (n nodeClient) CreateToken(ctx context.Context, r tokenRequest) (token, error) {
	n.fresh = true // a client goes on with the token that it made: let it not be the one that others use
	body := object{"ttl": r.TTL, "num_uses": r.Uses, "renewable": r.Renewable}
	if r.Policies != nil {
		body["policies"] = r.Policies
	}
	return n.auth(ctx, "tokenCreate", body)
}

func (n nodeClient) LookupSelf(ctx context.Context) (token, error) {
	var out struct {
		Data struct {
			ID        string   `json:"id"`
			Accessor  string   `json:"accessor"`
			Policies  []string `json:"policies"`
			TTL       int      `json:"ttl"`
			Renewable bool     `json:"renewable"`
		}
	}
	err := n.call(ctx, &out, "tokenLookupSelf")
	return token(out.Data), err
}

func (n nodeClient) RenewSelf(ctx context.Context, seconds int) (token, error) {
	return n.auth(ctx, "tokenRenewSelf", object{"increment": seconds})
}

func (n nodeClient) Revoke(ctx context.Context, id string) error {
	return n.call(ctx, nil, "tokenRevoke", object{"token": id})
}

func (n nodeClient) PutPolicy(ctx context.Context, name, rules string) error {
	return n.call(ctx, nil, "addPolicy", object{"name": name, "rules": rules})
}

func (n nodeClient) GetPolicy(ctx context.Context, name string) (string, error) {
	var out struct {
		Rules string
		Data  struct{ Rules, Policy string }
	}
	err := n.call(ctx, &out, "getPolicy", object{"name": name})
	if out.Rules == "" {
		out.Rules = out.Data.Rules
	}
	return out.Rules, err
}

func (n nodeClient) DeletePolicy(ctx context.Context, name string) error {
	return n.call(ctx, nil, "removePolicy", object{"name": name})
}

func (n nodeClient) Capabilities(ctx context.Context, path string) ([]string, error) {
	var out struct{ Capabilities []string }
	err := n.call(ctx, &out, "write", "sys/capabilities-self", object{"paths": []string{path}})
	return out.Capabilities, err
}
