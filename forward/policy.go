package forward

import "context"

// Policy says what is different for one request, by whoever handed it to the Router.
type Policy struct {
	NoRedirect bool // it is never answered 307: the active node's API is no place for it
	Repeat     bool // it may be sent again although it was delivered, whatever its method (P6)
}

type policyKey struct{}

// WithPolicy gives the request with this context the policy.
func WithPolicy(ctx context.Context, p Policy) context.Context {
	return context.WithValue(ctx, policyKey{}, p)
}

func policyFrom(ctx context.Context) Policy {
	p, _ := ctx.Value(policyKey{}).(Policy)
	return p
}
