// Package kubernetes keeps the HA lock in a Lease object of the Kubernetes API. It keeps no entries: beside it, another store is
// storage.
//
//	lock, err := kubernetes.Open(ctx, kubernetes.Config{Name: "orders"})
//
// # DESIGN
//
// One resource and four requests need no client library: the Lease is read (GET, consistently), made (POST), replaced (PUT with
// the resourceVersion that was read; a conflict is 409) and watched, over plain HTTP. The service account's token is read from its
// file for each request, since Kubernetes replaces it.
//
// Nothing in Kubernetes ends a Lease: leaseDurationSeconds is a word between clients. Whoever wants the lock must have seen the object
// unchanged for a full TTL on its own clock (package internal/cell); the times in the object are for people. The lock's
// record stands in the annotation "locum.io/lock", and holderIdentity and renewTime say the same to kubectl.
//
// The service account needs get, create, update, list and watch on leases of coordination.k8s.io in its namespace.
package kubernetes
