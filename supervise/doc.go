// Package supervise runs the applications that Locum protects, and ends them for certain (P2, P7).
//
//	guardian, err := supervise.StartGuardian(supervise.GuardianConfig{Executable: exe, Logger: log})
//	orders, err := supervise.New(supervise.Config{Name: "orders", Command: …, Runner: guardian})
//	go orders.Run(ctx)                       // until the node is sealed or ends
//	err = orders.Activate(lease, role)       // healthy, or an error: then the lock goes to another node
//	orders.Stop(drain)                       // planned: its stop signal, its time, then the end
//	orders.Kill(cause)                       // lost: at once
//
// # DESIGN
//
// Three processes stand between a node and what its application starts, all of them this same binary:
//
//	node ── guardian ── init ── the command, and whatever it starts
//
// The guardian is the parent of every tree. It outlives a node that crashed or was killed: the closed socket tells it at once,
// it ends all trees, sees that they have ended, and then releases the lock on the dead node's behalf. While the node
// lives it hands each deadline of its lease to the guardian, which kills by its own CLOCK_BOOTTIME timer when none newer
// comes: so a frozen node's application does not outlive its lease. What it decides is a pure function ([stepGuard]).
//
// The init holds one tree together. In a PID namespace of its own it is process 1: when it dies, the kernel kills all that is in
// the namespace, stopped processes and those that left the process group or session included, and its death is reported only
// when the last of them is gone. Its parent-death signal ties it to the guardian. Where this host grants no PID
// namespace, a cgroup (version 2) takes the tree's place, or else the init is the subreaper of everything below it and
// kills until it has no child left; it then notices the guardian's end by its own socket.
//
// The life of an application — starting, healthy, failing, backing off, giving up — is a pure function too ([stepLife]); [Application]
// is its shell. An application that fails too often makes its node step down, and the election's own growing back-off
// turns the round of all nodes into a slow, visible retry.
package supervise
