// Package locum makes any server highly available. Several nodes run; one holds a lock in a data store and is active;
// the others are standby and pass every request on to it. When the active node steps down or dies another takes over,
// the requests that arrived in between are held and then served, and nothing that was acknowledged is lost.
//
// The command in cmd/locum does this for a server in any language. This package builds it into one in Go. What each folder
// holds stands in docs/architecture.md, what is promised (P1 to P12) in docs/guarantees.md; four whole programs, with
// their tests, lie in examples/.
//
// # A highly available server
//
// Wherever the program made a listener and served its handler, it makes a [Node] and lets that serve:
//
//	key, err := locum.ReadKeyFile("/etc/app/locum.key")    // 32 random bytes, the same on all nodes
//	node, err := locum.New(locum.Config{
//		Storage:   raft.Config{Path: "/var/lib/app"},      // github.com/locum-ha/locum/physical/raft
//		Key:       key,
//		APIListen: "10.0.0.1:8400",                        // Locum's own port; the next one is for the other nodes
//		Join:      []string{"http://10.0.0.1:8400"},       // on every node alike: the first one finds only itself
//	})
//	node.Serve(":8080", handler)                           // clients come here, to any node
//	err = node.Run(ctx)                                    // until ctx ends
//
// The handler runs on one node at a time. A request that arrives at another is passed on over mutually authenticated TLS, with
// its body and its answer flowing both ways at once, so WebSockets, server-sent events and gRPC go through. While the active
// node changes, requests wait. A planned change fails none of them (P5); if the active node dies, those that it had not
// taken on are served by the next, those that it had are repeated if that is safe, and the rest are answered 503
// with "processed": "unknown" (P6; see Config.RepeatMethods).
//
// # State
//
// What the handler has to remember goes into [Entries], which are encrypted, replicated with raft or kept in a database that
// the program already uses, and fenced: a node that was frozen, and is not active any more without knowing, writes nothing.
//
//	todo := locum.TableOf[Task](node.Entries(), "tasks")
//	task, version, err := todo.Get(r.Context(), "42")
//	task.Done = true
//	_, err = todo.Put(r.Context(), "42", task, todo.If("42", version))
//
// A program with a database of its own needs none of this. It passes the term, the number of the leadership, along with its writes,
// and lets the database refuse lower ones.
//
// # Work
//
// What shall happen once in the cluster, and not per request, is a function:
//
//	node.OnActive(func(ctx context.Context, term uint64) error {
//		for {
//			if err := sendReminders(ctx, term); err != nil {
//				return err // this node gives its leadership up, another tries
//			}
//			select {
//			case <-ctx.Done():
//				return nil // context.Cause(ctx) says why
//			case <-time.After(time.Minute):
//			}
//		}
//	})
//
// # Locks
//
// What shall happen in one place at a time, but not necessarily on the active node, is done under one of the cluster's [Locks].
// Every holder gets a higher number than the one before:
//
//	lock, err := node.Locks().Acquire(ctx, "rebuild-index", locum.LockOptions{Wait: time.Minute})
//	defer lock.Release(ctx)
//	err = rebuild(lock.Context(), lock.Number())
//
// # gRPC
//
// A grpc.Server is an http.Handler: node.Serve(":9090", grpcServer). All four kinds of call go through a standby. A server that
// brings its own listener and protocol is started and stopped by OnActive instead; then clients look for the active node
// themselves, for instance at /v1/sys/active of Locum's API.
//
// # Operation
//
// Locum's API at Config.APIListen tells load balancers and people how the node is (/v1/sys/health, /v1/sys/leader,
// /v1/sys/ready, /v1/sys/metrics); the locum command speaks to it. Leave enough time at the end: Run steps down, lets
// requests and work end within Config.DrainTimeout, and returns.
//
// # DESIGN
//
// The node is the daemon's (internal/server), with handlers, work and stores that come as Go values instead of from a
// configuration file. A program's request takes the same way as one to Locum's API; a mark, which no client can set, tells the
// active node whose it is. Stores come in as values of their own packages, so that a program links those that it names.
package locum
