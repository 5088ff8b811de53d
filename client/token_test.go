package client

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The requests are Vault's, so that they can be sent to either.
func TestRequestsOfTokensPoliciesAndMetadata(t *testing.T) {
	var got []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line := fmt.Sprintf("%s %s %s", r.Method, strings.TrimPrefix(r.URL.RequestURI(), "/v1/"), body)
		if r.Method == http.MethodPatch {
			line += " " + r.Header.Get("Content-Type")
		}
		got = append(got, strings.TrimSpace(line))
		answer(w, 200, `{"data":{"keys":["a"],"policy":"path {}","ttl":7,"capabilities":["read","list"],"versions":{"2":{"destroyed":true}}},
			"auth":{"client_token":"s.new","lease_duration":60},"warnings":["w"]}`)
	})
	c, ctx := newClient(t, s.URL), t.Context()
	yes, n, after := true, 3, time.Hour
	made, err := c.Tokens().Create(ctx, TokenRequest{Policies: []string{"app"}, TTL: "1h", Renewable: &yes, Orphan: true})
	if err != nil || string(made.ClientToken) != "s.new" || made.LeaseDuration != 60 || fmt.Sprint(made.Warnings) != "[w]" || fmt.Sprint(made.ClientToken) != "***" {
		t.Errorf("create: %+v, %v", made, err)
	}
	_, _ = c.Tokens().Create(ctx, TokenRequest{})
	_, _ = c.Tokens().Renew(ctx, TokenID{}, time.Minute)
	_, _ = c.Tokens().Renew(ctx, TokenID{Accessor: "acc"}, 0)
	info, err := c.Tokens().Lookup(ctx, TokenID{})
	if err != nil || info.TTL != 7 {
		t.Errorf("lookup: %+v, %v", info, err)
	}
	_, _ = c.Tokens().Lookup(ctx, TokenID{Token: "s.x"})
	_ = c.Tokens().Revoke(ctx, TokenID{})
	_ = c.Tokens().Revoke(ctx, TokenID{Token: "s.x"})
	_ = c.Tokens().RevokeOrphan(ctx, "s.x")
	_, _ = c.Tokens().Accessors(ctx)
	if can, err := c.Tokens().Capabilities(ctx, TokenID{}, "secret/data/x"); err != nil || fmt.Sprint(can) != "[read list]" {
		t.Errorf("capabilities: %v, %v", can, err)
	}
	if text, err := c.Policies().Read(ctx, "app"); err != nil || text != "path {}" {
		t.Errorf("policy: %q, %v", text, err)
	}
	_ = c.Policies().Write(ctx, "app", "x")
	_ = c.Policies().Delete(ctx, "app")
	_, _ = c.Policies().List(ctx)
	_, _, _ = c.KV().Patch(ctx, "e", map[string]any{"a": nil}, nil)
	_, _ = c.KV().Undelete(ctx, "e", 1)
	_, _ = c.KV().Destroy(ctx, "e", 1, 2)
	if m, _, err := c.KV().Metadata(ctx, "e"); err != nil || !m.Versions["2"].Destroyed {
		t.Errorf("metadata: %+v, %v", m, err)
	}
	change := MetadataChange{MaxVersions: &n, CASRequired: &yes, DeleteVersionAfter: &after, Custom: map[string]string{"k": "v"}, RemoveCustom: []string{"old"}}
	_, _ = c.KV().PutMetadata(ctx, "e", change)
	_, _ = c.KV().PatchMetadata(ctx, "e", change)
	_, _ = c.KV().DeleteMetadata(ctx, "e")
	want := []string{
		`POST auth/token/create-orphan {"policies":["app"],"ttl":"1h","renewable":true}`,
		`POST auth/token/create {}`,
		`POST auth/token/renew-self {"increment":"1m0s"}`,
		`POST auth/token/renew-accessor {"accessor":"acc"}`,
		`GET auth/token/lookup-self`,
		`POST auth/token/lookup {"token":"s.x"}`,
		`POST auth/token/revoke-self {}`,
		`POST auth/token/revoke {"token":"s.x"}`,
		`POST auth/token/revoke-orphan {"token":"s.x"}`,
		`GET auth/token/accessors?list=true`,
		`POST sys/capabilities-self {"paths":["secret/data/x"]}`,
		`GET sys/policies/acl/app`,
		`PUT sys/policies/acl/app {"policy":"x"}`,
		`DELETE sys/policies/acl/app`,
		`GET sys/policies/acl?list=true`,
		`PATCH secret/data/e {"data":{"a":null}} application/merge-patch+json`,
		`POST secret/undelete/e {"versions":[1]}`,
		`POST secret/destroy/e {"versions":[1,2]}`,
		`GET secret/metadata/e`,
		`POST secret/metadata/e {"cas_required":true,"custom_metadata":{"k":"v"},"delete_version_after":"1h0m0s","max_versions":3}`,
		`PATCH secret/metadata/e {"cas_required":true,"custom_metadata":{"k":"v","old":null},"delete_version_after":"1h0m0s","max_versions":3} application/merge-patch+json`,
		`DELETE secret/metadata/e`,
	}
	for i := range max(len(want), len(got)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("request %d:\n got %q\nwant %q", i, got, want)
		}
	}
}
