//go:build !race

package raft

// testPace is the performance setting of the clusters of the tests.
const testPace = 1
