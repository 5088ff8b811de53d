// Package registration tells a catalog of services where this node is and what it is just now, so that clients find the
// active node there: Consul's catalog, or the labels of a Kubernetes pod. It has nothing to do with where entries and lock
// are kept.
//
//	r, err := registration.New(registration.Config{Catalog: catalog, State: state})
//	err = r.Run(ctx) // until ctx ends; then the node is not in the catalog any more
//
// # DESIGN
//
// A node's state is read from its memory five times a second, and what differs from what the catalog was last told is told:
// so no change of state has to find its way here, and a catalog that could not be reached is told the truth of the moment
// when it can be. What a catalog forgets by itself, such as that a service is well, is told anew in time.
package registration
