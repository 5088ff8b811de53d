package clients

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	vault "github.com/hashicorp/vault/api"
)

// openbao_test.go is this file with the types of OpenBao's module, which have the same shape and are others.
//go:generate sh -c "sed -f testdata/openbao.sed vault_test.go >openbao_test.go"

// vaultClient is github.com/hashicorp/vault/api with its defaults.
type vaultClient struct{ c *vault.Client }

func openVault(t testing.TB, address, token, namespace string) client {
	t.Helper()
	config := vault.DefaultConfig()
	config.Address = address
	c, err := vault.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(token)
	if namespace != "" {
		c.SetNamespace(namespace)
	}
	return vaultClient{c}
}

func vaultError(err error) error {
	var answer *vault.ResponseError
	switch {
	case errors.As(err, &answer):
		return &failure{answer.StatusCode, answer.Errors}
	case errors.Is(err, vault.ErrSecretNotFound):
		return &failure{Status: 404}
	}
	return err
}

func (v vaultClient) Health(ctx context.Context) (health, error) {
	r, err := v.c.Sys().HealthWithContext(ctx)
	if err != nil {
		return health{}, vaultError(err)
	}
	return health{r.Initialized, r.Sealed, r.Standby, r.Version, r.ClusterName, r.ClusterID, r.ServerTimeUTC}, nil
}

func (v vaultClient) Leader(ctx context.Context) (leader, error) {
	r, err := v.c.Sys().LeaderWithContext(ctx)
	if err != nil {
		return leader{}, vaultError(err)
	}
	return leader{r.HAEnabled, r.IsSelf, r.LeaderAddress, r.LeaderClusterAddress, r.ActiveTime}, nil
}

func (v vaultClient) Members(ctx context.Context) ([]member, error) {
	r, err := v.c.Sys().HAStatusWithContext(ctx)
	if err != nil {
		return nil, vaultError(err)
	}
	var members []member
	for _, n := range r.Nodes {
		members = append(members, member{n.Hostname, n.APIAddress, n.ClusterAddress, n.ActiveNode, n.LastEcho, n.Version})
	}
	return members, nil
}

func (v vaultClient) sealStatus(r *vault.SealStatusResponse, err error) (sealStatus, error) {
	if err != nil {
		return sealStatus{}, vaultError(err)
	}
	return sealStatus{r.Type, r.Initialized, r.Sealed, r.T, r.N, r.Progress, r.Version, r.StorageType, r.ClusterName}, nil
}

func (v vaultClient) SealStatus(ctx context.Context) (sealStatus, error) {
	return v.sealStatus(v.c.Sys().SealStatusWithContext(ctx))
}

func (v vaultClient) Unseal(ctx context.Context, key string) (sealStatus, error) {
	return v.sealStatus(v.c.Sys().UnsealWithContext(ctx, key))
}

func (v vaultClient) ResetUnseal(ctx context.Context) (sealStatus, error) {
	return v.sealStatus(v.c.Sys().ResetUnsealProcessWithContext(ctx))
}

func (v vaultClient) Initialized(ctx context.Context) (bool, error) {
	done, err := v.c.Sys().InitStatusWithContext(ctx)
	return done, vaultError(err)
}

func (v vaultClient) Init(ctx context.Context, shares, threshold int) ([]string, string, error) {
	r, err := v.c.Sys().InitWithContext(ctx, &vault.InitRequest{SecretShares: shares, SecretThreshold: threshold})
	if err != nil {
		return nil, "", vaultError(err)
	}
	return r.KeysB64, r.RootToken, nil
}

func (v vaultClient) Seal(ctx context.Context) error {
	return vaultError(v.c.Sys().SealWithContext(ctx))
}

func (v vaultClient) StepDown(ctx context.Context) error {
	return vaultError(v.c.Sys().StepDownWithContext(ctx))
}

func (v vaultClient) kv() *vault.KVv2 { return v.c.KVv2("secret") }

func vaultVersion(m vault.KVVersionMetadata) entry {
	return entry{Version: m.Version, Created: m.CreatedTime, Deleted: m.DeletionTime, Destroyed: m.Destroyed}
}

func (v vaultClient) entry(s *vault.KVSecret, err error) (entry, error) {
	if err != nil {
		return entry{}, vaultError(err)
	}
	e := vaultVersion(*s.VersionMetadata)
	e.Data, e.Custom = s.Data, s.CustomMetadata
	return e, nil
}

func (v vaultClient) Put(ctx context.Context, path string, data object, cas int) (entry, error) {
	var options []vault.KVOption
	if cas >= 0 {
		options = append(options, vault.WithCheckAndSet(cas))
	}
	e, err := v.entry(v.kv().Put(ctx, path, data, options...))
	e.Data = nil // the client fills in what was sent
	return e, err
}

func (v vaultClient) Patch(ctx context.Context, path string, data object) (entry, error) {
	e, err := v.entry(v.kv().Patch(ctx, path, data, vault.WithMergeMethod(vault.KVMergeMethodPatch)))
	e.Data = nil
	return e, err
}

func (v vaultClient) Get(ctx context.Context, path string, version int) (entry, error) {
	if version == 0 {
		return v.entry(v.kv().Get(ctx, path))
	}
	return v.entry(v.kv().GetVersion(ctx, path, version))
}

func (v vaultClient) Delete(ctx context.Context, path string, versions ...int) error {
	if len(versions) == 0 {
		return vaultError(v.kv().Delete(ctx, path))
	}
	return vaultError(v.kv().DeleteVersions(ctx, path, versions))
}

func (v vaultClient) Undelete(ctx context.Context, path string, versions ...int) error {
	return vaultError(v.kv().Undelete(ctx, path, versions))
}

func (v vaultClient) Destroy(ctx context.Context, path string, versions ...int) error {
	return vaultError(v.kv().Destroy(ctx, path, versions))
}

func (v vaultClient) List(ctx context.Context, path string) ([]string, error) {
	s, err := v.c.Logical().ListWithContext(ctx, strings.TrimSuffix("secret/metadata/"+path, "/"))
	switch {
	case err != nil:
		return nil, vaultError(err)
	case s == nil:
		return nil, &failure{Status: 404}
	}
	var names []string
	for _, name := range s.Data["keys"].([]any) {
		names = append(names, name.(string))
	}
	return names, nil
}

func (v vaultClient) Metadata(ctx context.Context, path string) (metadata, error) {
	m, err := v.kv().GetMetadata(ctx, path)
	if err != nil {
		return metadata{}, vaultError(err)
	}
	out := metadata{m.CurrentVersion, m.OldestVersion, m.MaxVersions, m.CASRequired, m.DeleteVersionAfter, m.CustomMetadata, map[string]entry{}}
	for n, version := range m.Versions {
		if strconv.Itoa(version.Version) != n {
			return out, errors.New("the client numbers version " + n + " otherwise")
		}
		out.Versions[n] = vaultVersion(version)
	}
	return out, nil
}

func (v vaultClient) PutMetadata(ctx context.Context, path string, s settings) error {
	return vaultError(v.kv().PutMetadata(ctx, path, vault.KVMetadataPutInput{
		MaxVersions: s.MaxVersions, CASRequired: s.CASRequired, CustomMetadata: s.Custom}))
}

func (v vaultClient) PatchMetadata(ctx context.Context, path string, maxVersions int, custom object) error {
	patch := vault.KVMetadataPatchInput{CustomMetadata: custom}
	if maxVersions > 0 {
		patch.MaxVersions = &maxVersions
	}
	return vaultError(v.kv().PatchMetadata(ctx, path, patch))
}

func (v vaultClient) DeleteMetadata(ctx context.Context, path string) error {
	return vaultError(v.kv().DeleteMetadata(ctx, path))
}

func (v vaultClient) data(s *vault.Secret, err error) (object, error) {
	if err != nil || s == nil {
		return nil, vaultError(err)
	}
	return s.Data, nil
}

func (v vaultClient) Read(ctx context.Context, path string) (object, error) {
	return v.data(v.c.Logical().ReadWithContext(ctx, path))
}

func (v vaultClient) Write(ctx context.Context, path string, data object) (object, error) {
	return v.data(v.c.Logical().WriteWithContext(ctx, path, data))
}

func (v vaultClient) Remove(ctx context.Context, path string) error {
	_, err := v.c.Logical().DeleteWithContext(ctx, path)
	return vaultError(err)
}

func (v vaultClient) token(s *vault.Secret, err error) (token, error) {
	if err != nil {
		return token{}, vaultError(err)
	}
	var out token
	var errs [5]error
	out.ID, errs[0] = s.TokenID()
	out.Accessor, errs[1] = s.TokenAccessor()
	out.Policies, errs[2] = s.TokenPolicies()
	ttl, err := s.TokenTTL()
	out.TTL, errs[3] = int(ttl.Seconds()), err
	out.Renewable, errs[4] = s.TokenIsRenewable()
	return out, errors.Join(errs[:]...)
}

func (v vaultClient) CreateToken(ctx context.Context, r tokenRequest) (token, error) {
	return v.token(v.c.Auth().Token().CreateWithContext(ctx, &vault.TokenCreateRequest{
		Policies: r.Policies, TTL: r.TTL, NumUses: r.Uses, Renewable: &r.Renewable}))
}

func (v vaultClient) LookupSelf(ctx context.Context) (token, error) {
	return v.token(v.c.Auth().Token().LookupSelfWithContext(ctx))
}

func (v vaultClient) RenewSelf(ctx context.Context, seconds int) (token, error) {
	return v.token(v.c.Auth().Token().RenewSelfWithContext(ctx, seconds))
}

func (v vaultClient) Revoke(ctx context.Context, id string) error {
	return vaultError(v.c.Auth().Token().RevokeTreeWithContext(ctx, id))
}

func (v vaultClient) PutPolicy(ctx context.Context, name, rules string) error {
	return vaultError(v.c.Sys().PutPolicyWithContext(ctx, name, rules))
}

func (v vaultClient) GetPolicy(ctx context.Context, name string) (string, error) {
	rules, err := v.c.Sys().GetPolicyWithContext(ctx, name)
	return rules, vaultError(err)
}

func (v vaultClient) DeletePolicy(ctx context.Context, name string) error {
	return vaultError(v.c.Sys().DeletePolicyWithContext(ctx, name))
}

func (v vaultClient) Capabilities(ctx context.Context, path string) ([]string, error) {
	names, err := v.c.Sys().CapabilitiesSelfWithContext(ctx, path)
	return names, vaultError(err)
}
