// Package locum makes any server highly available. Several nodes run; one holds a lock in a data store and is active;
// the others are standby and pass every request on to it. When the active node steps down or dies another takes over,
// the requests that arrived in between are held and then served, and nothing that was acknowledged is lost.
//
// The command is in cmd/locum. This package is the front door for Go servers that build Locum in. What each folder
// holds stands in docs/architecture.md, what is promised (P1 to P12) in docs/guarantees.md.
package locum
