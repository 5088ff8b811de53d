// Package config reads, completes and checks the configuration of a node.
//
// [Load] goes the whole way: the files of every -config are read in order (HCL, or the same as JSON), a later
// one overriding the earlier ones; the environment and flags come on top; what is left out gets its default;
// the addresses that nobody gave are found out, with the reason kept for the start-up table; and everything
// is checked. All faults are reported together, as [Faults], each with the file and line where it stands and
// with what to write instead. What may be meant but seldom is goes to [Config.Warnings].
//
// The comments of the fields in config.go are the manual: [Manual] lists them, and "locum help config" prints it.
//
// # DESIGN
//
// The decoder is our own, over hcl's parser, because hcl's gohcl keeps no positions of values: a fault found by
// Validate, long after decoding, could not name its line. Durations and sizes are strings with a unit; a bare
// number is an error and never guessed at.
package config
