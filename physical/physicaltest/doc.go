// Package physicaltest holds the suites that a data store must pass to carry Locum: [Backend] for one that
// keeps entries, [HABackend] for one that keeps the HA lock. They check what the comments of package
// physical promise, and cite it. Whoever writes a store in another repository is held to the same.
//
// A store is put under test by a [Harness], a function that makes a fresh store:
//
//	func TestConformance(t *testing.T) {
//		harness := func(t testing.TB) physicaltest.Store {
//			path := t.TempDir()
//			return physicaltest.Store{
//				Nodes: 1,
//				Open: func(int) (physicaltest.Handle, error) { return file.Open(file.Config{Path: path}) },
//			}
//		}
//		physicaltest.Backend(t, harness)
//	}
//
// A store with the lock calls [HABackend] with the same harness. What else a harness can say of a store, and do to
// it, are the fields of [Store]; all but Open may be left out.
//
// The suites run in real time, since most stores are reached over sockets, and with the TTLs that the
// store's Caps name; on a store with a MinTTL of 100 ms they take some ten seconds. "go test -short" runs
// fewer rounds of the same checks.
//
// Histories of concurrent calls, on the lock and on entries, are checked with porcupine, the only package beyond
// the standard library and physical that this one imports.
//
// # Faults
//
// A request that is cut after it was sent, and a black hole, are what most stores get wrong. A harness that
// can cause them on the network fills in [Store.CutAnswers] and [Store.Isolate]. Without, the suites put a
// [FaultyBackend] or [FaultyLock] before the handle, which at least shows that the store's side of the contract
// holds up. Other packages' tests may use the wrappers too.
//
// # Design
//
// A check is a function over a scene: a fresh store with its open handles. Checks are independent,
// run one after the other, and each ends with all handles closed and no goroutine more than before. The
// package's own tests run nearly all checks against stores that are broken on purpose, and fail if a check does
// not notice.
package physicaltest
