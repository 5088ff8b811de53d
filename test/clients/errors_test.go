package clients

import (
	"testing"
	"time"
)

// What a client asks wrongly it gets back as its own error, with status and sentence, the same from every node.
func (p *place) errors(t *testing.T) {
	ctx := within(t, 20*time.Second)
	c := p.client(t)
	path := "secret/data/" + p.prefix + "/wrong"

	const denied = "permission denied"
	for what, bearer := range map[string]string{"no token": "", "an unknown token": "s.0123456789abcdef0123456789abcdef"} {
		stranger := p.kind.open(t, p.node.URL(), bearer, "")
		_, err := stranger.Get(ctx, "a", 0)
		failed(t, "read with "+what, err, 403, denied)
		_, err = stranger.Put(ctx, "a", object{"a": "b"}, -1)
		failed(t, "write with "+what, err, 403, denied)
		failed(t, "step-down with "+what, stranger.StepDown(ctx), 403, denied)
		_, err = stranger.Read(ctx, "no/such/path")
		failed(t, "unknown path with "+what, err, 403, denied)
		if _, err := stranger.Health(ctx); err != nil {
			t.Errorf("health with %s: %v", what, err)
		}
	}

	_, err := c.Write(ctx, path, object{"user": "a"}) // version 1's way to write
	failed(t, "write without the field data", err, 400, "no data provided")
	_, err = c.Write(ctx, path, object{"data": "text"})
	failed(t, "write of a text", err, 400, "")
	_, err = c.Write(ctx, path, object{"data": object{"a": "b"}, "options": object{"cas": "x"}})
	failed(t, "write with a cas that is no number", err, 400, "whole number")
	_, err = c.Write(ctx, "secret/delete/"+p.prefix+"/wrong", object{"versions": []int{}})
	failed(t, "delete of no version", err, 400, "No version number provided")
	_, err = c.Read(ctx, path+"?version=-1")
	if p.kind.name == "node-vault" { // the others encode the question mark
		failed(t, "read of a version that is no number", err, 400, "version must be")
	}
	failed(t, "a method that the path does not have", c.Remove(ctx, "sys/ha-status"), 405, "method DELETE is not allowed")
	if data, err := c.Read(ctx, "secret/data/"+p.prefix+"/none"); err != nil || data != nil {
		t.Errorf("read of what is not there: %v, %v, want nothing and no error", data, err)
	}

	other := p.kind.open(t, p.node.URL(), p.Token, "team")
	_, err = other.Get(ctx, "a", 0)
	failed(t, "a namespace", err, 400, "namespaces are not supported")
}
