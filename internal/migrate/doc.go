// Package migrate copies all entries from one data store to another, offline: no node of the cluster may run.
//
// # DESIGN
//
// Entries are copied as they are, sealed: no key is needed. First the fence of the source is raised, where it is one that others can
// open: the leadership of a node that was forgotten ends with it, and if it begins another that raises the fence again, which is seen at the
// end. What such a node does later is not seen. Then the destination's is
// raised, above every term of the source, with a lineage of its own: terms never fall, and the lock starts a new history.
//
// Each commit to the destination carries that fence and the position that it has reached, so that a migration that was
// interrupted goes on behind its last commit, and two at a time stop each other. The entries that make a store a cluster's, the
// keyring say, come in the last commit: until then no node takes the destination for a cluster. Before that everything is
// read again and compared.
package migrate
