// Package diagnose finds out why a node does not start, unseal or join, or cannot be reached, and says what to do about
// it: configuration, certificates, the seal's key, the data directory and its disk, or the data store that the nodes share, names, ports, the other nodes, clocks.
//
//	report := diagnose.Run(ctx, diagnose.Options{Source: config.Source{Paths: paths}})
//	for _, f := range report.Findings { … }
//
// # DESIGN
//
// It looks, and changes nothing: the node may run meanwhile or not. Two things leave a trace for a moment: a file of a few
// KiB in the data directory, to measure the disk with, which is removed at once; and a port that is free is bound and
// closed again. A data store that nodes share is opened as a node opens it: that makes what it finds missing there, tables say,
// and writes no entry. Every step has a time limit, and the whole ends with its context.
//
// Each finding is one sentence about one thing, as somebody would say it who has looked, and what to do. What could not be
// looked at is said too ([Skipped]), so that silence always means that a thing was looked at.
//
// What belongs to other packages — opening the root key with the seal, opening data stores — comes in as functions.
package diagnose
