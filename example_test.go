package locum_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/locum-ha/locum"
	"github.com/locum-ha/locum/physical/memory"
	"github.com/locum-ha/locum/physical/raft"
)

// A highly available server, whole: run it on three machines.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	key, err := locum.ReadKeyFile("/etc/app/locum.key")
	if err != nil {
		log.Fatal(err)
	}
	node, err := locum.New(locum.Config{
		Storage:   raft.Config{Path: "/var/lib/app"},
		Key:       key,
		APIListen: os.Getenv("ADDRESS"), // such as 10.0.0.2:8400
		Join:      []string{"http://10.0.0.1:8400"},
	})
	if err != nil {
		log.Fatal(err) // with everything that is wrong, and what to do
	}
	node.Serve(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello from the active node")
	}))
	if err := node.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// example runs a node until the returned function is called, and waits until it is active.
func example(setup func(*locum.Node)) (node *locum.Node, stop func()) {
	node, err := locum.New(locum.Config{
		Storage: memory.NewStore(), Key: locum.NewKey(), NodeName: "one", Logger: slog.New(slog.DiscardHandler),
		APIListen: "127.0.0.1:0", ClusterListen: "127.0.0.1:0",
	})
	if err != nil {
		log.Fatal(err)
	}
	setup(node)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error)
	go func() { over <- node.Run(ctx) }()
	if err := node.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	return node, func() {
		cancel()
		if err := <-over; err != nil {
			log.Fatal(err)
		}
	}
}

// Requests run on the active node, under a context that belongs to its term.
func ExampleNode_Protect() {
	var protected http.Handler
	_, stop := example(func(node *locum.Node) {
		protected = node.Protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			version, err := node.Entries().Put(r.Context(), "greeting", []byte("hello"))
			fmt.Fprintf(w, "written in term %d: %v", version.Term, err)
		}))
	})
	defer stop()
	server := httptest.NewServer(protected)
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	fmt.Println(string(answer), err)
	// Output: written in term 1: <nil> <nil>
}

// Work runs on one node at a time.
func ExampleNode_OnActive() {
	done := make(chan uint64)
	_, stop := example(func(node *locum.Node) {
		node.OnActive(func(ctx context.Context, term uint64) error {
			select {
			case done <- term:
			case <-ctx.Done():
			}
			<-ctx.Done()
			return nil
		})
	})
	fmt.Println("active in term", <-done)
	stop()
	// Output: active in term 1
}

// A table holds values of one type; conditions make a read and a write one step.
func ExampleTableOf() {
	type task struct{ Done bool }
	node, stop := example(func(*locum.Node) {})
	defer stop()
	ctx := context.Background()
	tasks := locum.TableOf[task](node.Entries(), "tasks")
	old, err := tasks.Put(ctx, "42", task{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tasks.Put(ctx, "42", task{Done: true}, tasks.If("42", old)); err != nil {
		log.Fatal(err)
	}
	_, err = tasks.Put(ctx, "42", task{}, tasks.If("42", old)) // somebody was faster
	value, _, _ := tasks.Get(ctx, "42")
	fmt.Println(value, errors.Is(err, locum.ErrConflict))
	// Output: {true} true
}

// One holder at a time, on whichever node; the number rises with every holder.
func ExampleLocks_Acquire() {
	node, stop := example(func(*locum.Node) {})
	defer stop()
	ctx := context.Background()
	for range 2 {
		lock, err := node.Locks().Acquire(ctx, "rebuild-index", locum.LockOptions{Wait: time.Minute})
		if err != nil {
			log.Fatal(err)
		}
		_, err = node.Locks().Acquire(ctx, "rebuild-index", locum.LockOptions{})
		fmt.Println(lock.Number(), errors.Is(err, locum.ErrHeld), lock.Release(ctx))
	}
	// Output:
	// 1 true <nil>
	// 2 true <nil>
}
