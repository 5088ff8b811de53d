//go:build race

package raft

// testPace slows the clusters of the tests down: the race detector makes everything several times slower.
const testPace = 3
