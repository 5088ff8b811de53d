// Package history records what clients of versioned entries saw and checks with porcupine that one order of
// all operations explains it (linearizability): no acknowledged write lost, no old value read (P3, P4), no
// write carried out twice (P6).
//
// DESIGN. Each key is a history of its own. Its state is a version and a value; a write answers with the
// version that it made, so that nearly every operation says where it stands and the check stays fast. An
// operation whose outcome is unknown may take effect at any time up to the end of the history, or never;
// one that was certainly not carried out is left out, as is a read without an answer.
package history
