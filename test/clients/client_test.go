package clients

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// client is what the tests ask of a client of Vault. Errors are *failure where the server answered.
type client interface {
	Health(ctx context.Context) (health, error)
	Leader(ctx context.Context) (leader, error)
	Members(ctx context.Context) ([]member, error)
	SealStatus(ctx context.Context) (sealStatus, error)
	Initialized(ctx context.Context) (bool, error)
	Init(ctx context.Context, shares, threshold int) (keys []string, token string, err error)
	Unseal(ctx context.Context, key string) (sealStatus, error)
	ResetUnseal(ctx context.Context) (sealStatus, error)
	Seal(ctx context.Context) error
	StepDown(ctx context.Context) error

	Put(ctx context.Context, path string, data object, cas int) (entry, error) // cas < 0: none
	Patch(ctx context.Context, path string, data object) (entry, error)
	Get(ctx context.Context, path string, version int) (entry, error) // version 0: the newest
	Delete(ctx context.Context, path string, versions ...int) error   // none: the newest
	Undelete(ctx context.Context, path string, versions ...int) error
	Destroy(ctx context.Context, path string, versions ...int) error
	List(ctx context.Context, path string) ([]string, error)
	Metadata(ctx context.Context, path string) (metadata, error)
	PutMetadata(ctx context.Context, path string, m settings) error
	PatchMetadata(ctx context.Context, path string, maxVersions int, custom object) error // maxVersions 0: left alone
	DeleteMetadata(ctx context.Context, path string) error

	// The client's own calls of any path, with the answer's data; nil for an answer without.
	Read(ctx context.Context, path string) (object, error)
	Write(ctx context.Context, path string, data object) (object, error)
	Remove(ctx context.Context, path string) error

	CreateToken(ctx context.Context, req tokenRequest) (token, error)
	LookupSelf(ctx context.Context) (token, error)
	RenewSelf(ctx context.Context, seconds int) (token, error)
	Revoke(ctx context.Context, id string) error
	PutPolicy(ctx context.Context, name, rules string) error
	GetPolicy(ctx context.Context, name string) (string, error)
	DeletePolicy(ctx context.Context, name string) error
	Capabilities(ctx context.Context, path string) ([]string, error) // of the client's own token
}

type object = map[string]any

type health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Version     string `json:"version"`
	ClusterName string `json:"cluster_name"`
	ClusterID   string `json:"cluster_id"`
	ServerTime  int64  `json:"server_time_utc"`
}

type leader struct {
	HAEnabled      bool      `json:"ha_enabled"`
	IsSelf         bool      `json:"is_self"`
	Address        string    `json:"leader_address"`
	ClusterAddress string    `json:"leader_cluster_address"`
	ActiveTime     time.Time `json:"active_time"`
}

type member struct {
	Hostname       string     `json:"hostname"`
	APIAddress     string     `json:"api_address"`
	ClusterAddress string     `json:"cluster_address"`
	Active         bool       `json:"active_node"`
	LastEcho       *time.Time `json:"last_echo"`
	Version        string     `json:"version"`
}

type sealStatus struct {
	Type        string `json:"type"`
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Threshold   int    `json:"t"`
	Shares      int    `json:"n"`
	Progress    int    `json:"progress"`
	Version     string `json:"version"`
	StorageType string `json:"storage_type"`
	ClusterName string `json:"cluster_name"`
}

// entry is one version of an entry; Data is nil where it was deleted or only its metadata were answered.
type entry struct {
	Data      object
	Version   int
	Created   time.Time
	Deleted   time.Time
	Destroyed bool
	Custom    object
}

type metadata struct {
	Current, Oldest, MaxVersions int
	CASRequired                  bool
	DeleteAfter                  time.Duration
	Custom                       object
	Versions                     map[string]entry
}

type settings struct {
	MaxVersions int
	CASRequired bool
	Custom      object
}

type tokenRequest struct {
	Policies  []string
	TTL       string
	Uses      int
	Renewable bool
}

type token struct {
	ID        string // the token itself; "" where it was not answered
	Accessor  string
	Policies  []string
	TTL       int // seconds
	Renewable bool
}

// failure is an error that the server answered.
type failure struct {
	Status int
	Errors []string
}

func (f *failure) Error() string {
	return fmt.Sprintf("status %d: %s", f.Status, strings.Join(f.Errors, "; "))
}

// failed checks that err is an answer of that status whose first sentence contains text.
func failed(t *testing.T, what string, err error, status int, text string) {
	t.Helper()
	var f *failure
	switch {
	case err == nil:
		t.Errorf("%s: no error, want status %d with %q", what, status, text)
	case !errors.As(err, &f):
		t.Errorf("%s: %v, want an answer of status %d", what, err, status)
	case f.Status != status || !strings.Contains(strings.Join(f.Errors[:min(1, len(f.Errors))], ""), text):
		t.Errorf("%s: %v, want status %d with %q", what, err, status, text)
	}
}

// ok ends the test if a step that others build on failed.
func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// kind is one of the clients.
type kind struct {
	name    string
	retries bool // it tries again by itself after a 5xx
	open    func(t testing.TB, address, token, namespace string) client
}

var kinds = []kind{
	{"vault", true, openVault},
	{"openbao", true, openBao},
	{"node-vault", false, openNode},
}
