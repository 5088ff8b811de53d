// Package s3 keeps entries, and if asked the HA lock, in objects of an S3 bucket, on Amazon S3 or a compatible service that
// honours conditional writes.
//
//	store, err := s3.Open(ctx, s3.Config{Bucket: "locum", Path: "orders"})
//
// # DESIGN
//
// S3 has no transaction over several objects, but one object can be swapped: PutObject with If-Match. So all state hangs on one
// object, the index: the fence, a version number, and the list of pages. A page is an immutable object with a range of keys, their
// values up to 2 KiB in it; a longer value is an immutable object of its own. A commit writes new values and new pages, under
// names that nobody has used, and then swaps the index from the one that it was worked out on. Whoever's If-Match fails (412), or
// who meets another swap under way (409), has lost: nothing of the commit is seen, and it is worked out anew on the new index. The
// fence is part of what is swapped, so it is checked in the same step as the write (P1).
//
// Commits that wait share one swap. A read asks once whether the index is still the one that is known (If-None-Match, 304), and
// all reads that wait share that question; pages are kept in memory.
//
// What a write costs: one request for each value longer than 2 KiB, one for each page that it touches, one for the index; a
// page has 128 KiB at most, and the index grows by about 120 bytes per page. A hundred thousand entries of 1 KiB make an index of
// some 150 KiB, which each swap writes.
//
// The index carries the marks of the last swaps. So a swap without an answer is settled: it is sent again, and if the index has
// changed meanwhile, the marks tell whether it was this one. Index and lock are never deleted, since a deletion is not conditional
// everywhere.
//
// # GARBAGE
//
// Objects that a swap has replaced are deleted half a minute later, a thousand at a request. What a crash leaves behind is found by
// a sweep, after a fence was raised: an object's name begins with the version of the index that it was written for, so one
// that is older than the present index and not in it can never come into it, and needs no clock to be known as garbage.
package s3
