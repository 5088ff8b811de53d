// Package cluster runs real Locum clusters for tests and benchmarks: it builds the binary once (or once per version), starts nodes
// on addresses of their own, initialises them, and does to them what happens to servers — a crash (Kill), a
// planned stop (Stop), a pause (Freeze, Wake), a lost disk (Empty), a cut link (Network.Cut).
//
// DESIGN. Without a Network each node has a loopback address of its own (127.x.y.z), so that ports never
// collide and stay the same over a restart. With a Network each node has a network namespace on a bridge;
// this needs root and iproute2. Every process is started by one thread that lives as long as the program,
// with PR_SET_PDEATHSIG, so that nothing is left behind even when a test is killed. Nodes are ended by pid.
package cluster
