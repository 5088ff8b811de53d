// Package file is a data store in one folder of this machine's disk, for a node that runs alone: it keeps
// entries and the fence, and no HA lock. Its storage name is "file". What a Commit has acknowledged
// survives the end of the process by whatever means, and a power cut, as far as the disk keeps what it has
// synced.
//
// # Design
//
// Everything is in one bbolt file, entries.db, which its process holds locked; bbolt gives transactions
// that are whole or not there, synced to the disk before they count. What this package adds:
//
//   - One goroutine writes. It takes all commits that wait and puts them into one transaction, so that
//     they share its two syncs; each is checked on its own against what those before it left, and one that is
//     refused writes nothing. A caller whose context ends walks away, which is why
//     the transaction is not the caller's own.
//   - A transaction that failed is looked up by the number that it carries. If it is not there, nothing was written, and the
//     store goes on: so a full disk costs an error. If it is there although the disk failed to sync it, the
//     outcome is unknown, and the store serves no more until it is opened again.
//   - The file is made under another name and linked into place when it is whole, so that a crash at the
//     first start leaves nothing that a second one could stumble over.
//
// Values are stored behind one byte that names the format; the fence is a small JSON object.
package file
