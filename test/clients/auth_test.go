package clients

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// as opens the client with another token.
func (p *place) as(t *testing.T, id string) client { return p.kind.open(t, p.node.URL(), id, "") }

// The life of a token: made, looked up, renewed, used up, expired, revoked with its children.
func (p *place) tokens(t *testing.T) {
	ctx := within(t, 20*time.Second)
	c := p.client(t)
	if own, err := c.LookupSelf(ctx); err != nil || own.ID != p.Token || !slices.Equal(own.Policies, []string{"root"}) || own.TTL != 0 {
		t.Errorf("lookup of the root token: policies %v, TTL %d, %v", own.Policies, own.TTL, err)
	}
	short, err := c.CreateToken(ctx, tokenRequest{TTL: "1s", Policies: []string{"default"}})
	ok(t, "create a token for a second", err)

	made, err := c.CreateToken(ctx, tokenRequest{TTL: "1h", Policies: []string{"default"}, Renewable: true})
	ok(t, "create a token", err)
	if made.ID == "" || made.Accessor == "" || !made.Renewable || made.TTL <= 3590 || made.TTL > 3600 {
		t.Errorf("made: accessor %q, renewable %v, TTL %d", made.Accessor, made.Renewable, made.TTL)
	}
	mine := p.as(t, made.ID)
	own, err := mine.LookupSelf(ctx)
	if err != nil || own.ID != made.ID || own.Accessor != made.Accessor || !own.Renewable || own.TTL <= 3590 || own.TTL > 3600 ||
		!slices.Equal(own.Policies, []string{"default"}) {
		t.Errorf("lookup: accessor %q, policies %v, TTL %d, %v", own.Accessor, own.Policies, own.TTL, err)
	}
	renewed, err := mine.RenewSelf(ctx, 7200)
	if err != nil || renewed.TTL <= 7190 || renewed.TTL > 7200 || renewed.Accessor != made.Accessor {
		t.Errorf("renew: TTL %d, %v", renewed.TTL, err)
	}
	fixed, err := c.CreateToken(ctx, tokenRequest{TTL: "1h", Policies: []string{"default"}})
	ok(t, "create a token that cannot be renewed", err)
	_, err = p.as(t, fixed.ID).RenewSelf(ctx, 7200)
	failed(t, "renewal of what cannot be", err, 400, "not renewable")
	if fixed.Renewable {
		t.Error("a token is renewable that was not asked to be")
	}

	ok(t, "revoke", c.Revoke(ctx, made.ID))
	_, err = mine.LookupSelf(ctx)
	failed(t, "lookup of a revoked token", err, 403, "permission denied")
	failed(t, "revoke by a token that may not", p.as(t, fixed.ID).Revoke(ctx, p.Token), 403, "permission denied")

	counted, err := c.CreateToken(ctx, tokenRequest{Uses: 2, Policies: []string{"default"}, TTL: "1h"})
	ok(t, "create a token for two uses", err)
	for n := range 3 {
		_, err = p.as(t, counted.ID).LookupSelf(ctx)
		if n < 2 && err != nil {
			t.Errorf("use %d: %v", n+1, err)
		}
	}
	failed(t, "the third of two uses", err, 403, "permission denied")

	if !p.active { // once for each client: it takes a second
		ok(t, "expiry", cluster.Poll(ctx, "the token has expired", func() error {
			if _, err = p.as(t, short.ID).LookupSelf(ctx); err == nil {
				return fmt.Errorf("it is good")
			}
			return nil
		}))
		failed(t, "lookup of an expired token", err, 403, "permission denied")
	}
}

// What policies allow and deny is the same for each client at each node.
func (p *place) policies(t *testing.T) {
	ctx := within(t, 20*time.Second)
	c := p.client(t)
	name, base := p.prefix, p.prefix+"/policies"
	rules := strings.ReplaceAll(`
path "secret/data/BASE/*"         { capabilities = ["create", "read", "update"] }
path "secret/data/BASE/private/*" { capabilities = ["deny"] }
path "secret/data/BASE/+/log"     { capabilities = ["read", "patch"] }
path "secret/metadata/BASE"       { capabilities = ["list"] }
path "auth/token/create"          { capabilities = ["update"] }
`, "BASE", base)
	failed(t, "a policy that is none", c.PutPolicy(ctx, name, `path "a" {`), 400, "")
	failed(t, "a policy with a capability that is none", c.PutPolicy(ctx, name, `path "a" { capabilities = ["fly"] }`), 400, "fly")
	ok(t, "put policy", c.PutPolicy(ctx, name, rules))
	if text, err := c.GetPolicy(ctx, name); err != nil || text != rules {
		t.Errorf("get policy: %q, %v", text, err)
	}
	for _, path := range []string{"/a", "/private/a", "/x/log"} {
		ok(t, "write as root", errOf(c.Put(ctx, base+path, object{"v": "1"}, -1)))
	}
	made, err := c.CreateToken(ctx, tokenRequest{Policies: []string{name}, TTL: "1h", Renewable: true})
	ok(t, "create a token", err)
	if !slices.Equal(made.Policies, []string{"default", name}) {
		t.Errorf("its policies: %q", made.Policies)
	}
	mine := p.as(t, made.ID)

	const denied = "permission denied"
	allow := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	allow("read", errOf(mine.Get(ctx, base+"/a", 0)))
	allow("write of a new one", errOf(mine.Put(ctx, base+"/b", object{"v": "2"}, 0)))
	allow("write of the next version", errOf(mine.Put(ctx, base+"/a", object{"v": "2"}, 1)))
	allow("patch where it is allowed", errOf(mine.Patch(ctx, base+"/x/log", object{"v": "2"})))
	names, err := mine.List(ctx, base)
	allow("list", err)
	if !slices.Equal(names, []string{"a", "b", "private/", "x/"}) {
		t.Errorf("list: %q", names)
	}
	failed(t, "delete", mine.Delete(ctx, base+"/a"), 403, denied)
	failed(t, "patch", errOf(mine.Patch(ctx, base+"/a", object{"v": "3"})), 403, denied)
	failed(t, "write where reading alone is allowed", errOf(mine.Put(ctx, base+"/x/log", object{"v": "3"}, -1)), 403, denied)
	failed(t, "read of what is denied", errOf(mine.Get(ctx, base+"/private/a", 0)), 403, denied)
	failed(t, "read of what is not named", errOf(mine.Get(ctx, "other", 0)), 403, denied)
	_, err = mine.Metadata(ctx, base+"/a")
	failed(t, "metadata", err, 403, denied)
	failed(t, "step-down", mine.StepDown(ctx), 403, denied)
	failed(t, "change of its own policy", mine.PutPolicy(ctx, name, `path "*" { capabilities = ["sudo"] }`), 403, denied)
	for path, want := range map[string][]string{
		"secret/data/" + base + "/a":         {"create", "read", "update"},
		"secret/data/" + base + "/private/a": {"deny"},
		"secret/data/other":                  {"deny"},
	} {
		got, err := mine.Capabilities(ctx, path)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("capabilities at %s: %q, %v, want %q", path, got, err, want)
		}
	}

	child, err := mine.CreateToken(ctx, tokenRequest{TTL: "1h"})
	ok(t, "a child", err)
	allow("read by the child", errOf(p.as(t, child.ID).Get(ctx, base+"/a", 0)))
	ok(t, "delete policy", c.DeletePolicy(ctx, name))
	failed(t, "read without the policy", errOf(mine.Get(ctx, base+"/a", 0)), 403, denied)
	ok(t, "revoke", c.Revoke(ctx, made.ID))
	_, err = p.as(t, child.ID).LookupSelf(ctx)
	failed(t, "lookup of a revoked token's child", err, 403, denied)
}
