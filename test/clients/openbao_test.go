package clients

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	bao "github.com/openbao/openbao/api/v2"
)

// baoClient is github.com/openbao/openbao/api/v2 with its defaults: vault_test.go with the types of that module.
type baoClient struct{ c *bao.Client }

func openBao(t testing.TB, address, token, namespace string) client {
	t.Helper()
	config := bao.DefaultConfig()
	config.Address = address
	c, err := bao.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(token)
	if namespace != "" {
		c.SetNamespace(namespace)
	}
	return baoClient{c}
}

func baoError(err error) error {
	var answer *bao.ResponseError
	switch {
	case errors.As(err, &answer):
		return &failure{answer.StatusCode, answer.Errors}
	case errors.Is(err, bao.ErrSecretNotFound):
		return &failure{Status: 404}
	}
	return err
}

func (b baoClient) Health(ctx context.Context) (health, error) {
	r, err := b.c.Sys().HealthWithContext(ctx)
	if err != nil {
		return health{}, baoError(err)
	}
	return health{r.Initialized, r.Sealed, r.Standby, r.Version, r.ClusterName, r.ClusterID, r.ServerTimeUTC}, nil
}

func (b baoClient) Leader(ctx context.Context) (leader, error) {
	r, err := b.c.Sys().LeaderWithContext(ctx)
	if err != nil {
		return leader{}, baoError(err)
	}
	return leader{r.HAEnabled, r.IsSelf, r.LeaderAddress, r.LeaderClusterAddress, r.ActiveTime}, nil
}

func (b baoClient) Members(ctx context.Context) ([]member, error) {
	r, err := b.c.Sys().HAStatusWithContext(ctx)
	if err != nil {
		return nil, baoError(err)
	}
	var members []member
	for _, n := range r.Nodes {
		members = append(members, member{n.Hostname, n.APIAddress, n.ClusterAddress, n.ActiveNode, n.LastEcho, n.Version})
	}
	return members, nil
}

func (b baoClient) sealStatus(r *bao.SealStatusResponse, err error) (sealStatus, error) {
	if err != nil {
		return sealStatus{}, baoError(err)
	}
	return sealStatus{r.Type, r.Initialized, r.Sealed, r.T, r.N, r.Progress, r.Version, r.StorageType, r.ClusterName}, nil
}

func (b baoClient) SealStatus(ctx context.Context) (sealStatus, error) {
	return b.sealStatus(b.c.Sys().SealStatusWithContext(ctx))
}

func (b baoClient) Unseal(ctx context.Context, key string) (sealStatus, error) {
	return b.sealStatus(b.c.Sys().UnsealWithContext(ctx, key))
}

func (b baoClient) ResetUnseal(ctx context.Context) (sealStatus, error) {
	return b.sealStatus(b.c.Sys().ResetUnsealProcessWithContext(ctx))
}

func (b baoClient) Initialized(ctx context.Context) (bool, error) {
	done, err := b.c.Sys().InitStatusWithContext(ctx)
	return done, baoError(err)
}

func (b baoClient) Init(ctx context.Context, shares, threshold int) ([]string, string, error) {
	r, err := b.c.Sys().InitWithContext(ctx, &bao.InitRequest{SecretShares: shares, SecretThreshold: threshold})
	if err != nil {
		return nil, "", baoError(err)
	}
	return r.KeysB64, r.RootToken, nil
}

func (b baoClient) Seal(ctx context.Context) error {
	return baoError(b.c.Sys().SealWithContext(ctx))
}

func (b baoClient) StepDown(ctx context.Context) error {
	return baoError(b.c.Sys().StepDownWithContext(ctx))
}

func (b baoClient) kv() *bao.KVv2 { return b.c.KVv2("secret") }

func baoVersion(m bao.KVVersionMetadata) entry {
	return entry{Version: m.Version, Created: m.CreatedTime, Deleted: m.DeletionTime, Destroyed: m.Destroyed}
}

func (b baoClient) entry(s *bao.KVSecret, err error) (entry, error) {
	if err != nil {
		return entry{}, baoError(err)
	}
	e := baoVersion(*s.VersionMetadata)
	e.Data, e.Custom = s.Data, s.CustomMetadata
	return e, nil
}

func (b baoClient) Put(ctx context.Context, path string, data object, cas int) (entry, error) {
	var options []bao.KVOption
	if cas >= 0 {
		options = append(options, bao.WithCheckAndSet(cas))
	}
	e, err := b.entry(b.kv().Put(ctx, path, data, options...))
	e.Data = nil // the client fills in what was sent
	return e, err
}

func (b baoClient) Patch(ctx context.Context, path string, data object) (entry, error) {
	e, err := b.entry(b.kv().Patch(ctx, path, data, bao.WithMergeMethod(bao.KVMergeMethodPatch)))
	e.Data = nil
	return e, err
}

func (b baoClient) Get(ctx context.Context, path string, version int) (entry, error) {
	if version == 0 {
		return b.entry(b.kv().Get(ctx, path))
	}
	return b.entry(b.kv().GetVersion(ctx, path, version))
}

func (b baoClient) Delete(ctx context.Context, path string, versions ...int) error {
	if len(versions) == 0 {
		return baoError(b.kv().Delete(ctx, path))
	}
	return baoError(b.kv().DeleteVersions(ctx, path, versions))
}

func (b baoClient) Undelete(ctx context.Context, path string, versions ...int) error {
	return baoError(b.kv().Undelete(ctx, path, versions))
}

func (b baoClient) Destroy(ctx context.Context, path string, versions ...int) error {
	return baoError(b.kv().Destroy(ctx, path, versions))
}

func (b baoClient) List(ctx context.Context, path string) ([]string, error) {
	s, err := b.c.Logical().ListWithContext(ctx, strings.TrimSuffix("secret/metadata/"+path, "/"))
	switch {
	case err != nil:
		return nil, baoError(err)
	case s == nil:
		return nil, &failure{Status: 404}
	}
	var names []string
	for _, name := range s.Data["keys"].([]any) {
		names = append(names, name.(string))
	}
	return names, nil
}

func (b baoClient) Metadata(ctx context.Context, path string) (metadata, error) {
	m, err := b.kv().GetMetadata(ctx, path)
	if err != nil {
		return metadata{}, baoError(err)
	}
	out := metadata{m.CurrentVersion, m.OldestVersion, m.MaxVersions, m.CASRequired, m.DeleteVersionAfter, m.CustomMetadata, map[string]entry{}}
	for n, version := range m.Versions {
		if strconv.Itoa(version.Version) != n {
			return out, errors.New("the client numbers version " + n + " otherwise")
		}
		out.Versions[n] = baoVersion(version)
	}
	return out, nil
}

func (b baoClient) PutMetadata(ctx context.Context, path string, s settings) error {
	return baoError(b.kv().PutMetadata(ctx, path, bao.KVMetadataPutInput{
		MaxVersions: s.MaxVersions, CASRequired: s.CASRequired, CustomMetadata: s.Custom}))
}

func (b baoClient) PatchMetadata(ctx context.Context, path string, maxVersions int, custom object) error {
	patch := bao.KVMetadataPatchInput{CustomMetadata: custom}
	if maxVersions > 0 {
		patch.MaxVersions = &maxVersions
	}
	return baoError(b.kv().PatchMetadata(ctx, path, patch))
}

func (b baoClient) DeleteMetadata(ctx context.Context, path string) error {
	return baoError(b.kv().DeleteMetadata(ctx, path))
}

func (b baoClient) data(s *bao.Secret, err error) (object, error) {
	if err != nil || s == nil {
		return nil, baoError(err)
	}
	return s.Data, nil
}

func (b baoClient) Read(ctx context.Context, path string) (object, error) {
	return b.data(b.c.Logical().ReadWithContext(ctx, path))
}

func (b baoClient) Write(ctx context.Context, path string, data object) (object, error) {
	return b.data(b.c.Logical().WriteWithContext(ctx, path, data))
}

func (b baoClient) Remove(ctx context.Context, path string) error {
	_, err := b.c.Logical().DeleteWithContext(ctx, path)
	return baoError(err)
}

func (b baoClient) token(s *bao.Secret, err error) (token, error) {
	if err != nil {
		return token{}, baoError(err)
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

func (b baoClient) CreateToken(ctx context.Context, r tokenRequest) (token, error) {
	return b.token(b.c.Auth().Token().CreateWithContext(ctx, &bao.TokenCreateRequest{
		Policies: r.Policies, TTL: r.TTL, NumUses: r.Uses, Renewable: &r.Renewable}))
}

func (b baoClient) LookupSelf(ctx context.Context) (token, error) {
	return b.token(b.c.Auth().Token().LookupSelfWithContext(ctx))
}

func (b baoClient) RenewSelf(ctx context.Context, seconds int) (token, error) {
	return b.token(b.c.Auth().Token().RenewSelfWithContext(ctx, seconds))
}

func (b baoClient) Revoke(ctx context.Context, id string) error {
	return baoError(b.c.Auth().Token().RevokeTreeWithContext(ctx, id))
}

func (b baoClient) PutPolicy(ctx context.Context, name, rules string) error {
	return baoError(b.c.Sys().PutPolicyWithContext(ctx, name, rules))
}

func (b baoClient) GetPolicy(ctx context.Context, name string) (string, error) {
	rules, err := b.c.Sys().GetPolicyWithContext(ctx, name)
	return rules, baoError(err)
}

func (b baoClient) DeletePolicy(ctx context.Context, name string) error {
	return baoError(b.c.Sys().DeletePolicyWithContext(ctx, name))
}

func (b baoClient) Capabilities(ctx context.Context, path string) ([]string, error) {
	names, err := b.c.Sys().CapabilitiesSelfWithContext(ctx, path)
	return names, baoError(err)
}
