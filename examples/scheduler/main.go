// Command scheduler runs each job that it is given once, at its time, on one of its nodes. See README.md.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/locum-ha/locum"
	"github.com/locum-ha/locum/physical/raft"
)

func main() {
	name := flag.String("name", "", "this node's name; default: the host's")
	dir := flag.String("dir", "scheduler-data", "where this node keeps its copy")
	keyFile := flag.String("key", "locum.key", "32 random bytes, the same on all nodes")
	listen := flag.String("listen", "127.0.0.1:8080", "host:port for clients")
	api := flag.String("api", "127.0.0.1:8400", "host:port of Locum's own API, where other nodes join")
	cluster := flag.String("cluster", "", "host:port for the other nodes; default: that of -api, its port + 1")
	join := flag.String("join", "http://127.0.0.1:8400", "the first node's API; the same on all nodes")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	key, err := locum.ReadKeyFile(*keyFile)
	if err != nil {
		log.Fatal(err)
	}
	node, err := locum.New(locum.Config{
		Storage: raft.Config{Path: *dir}, Key: key, NodeName: *name,
		APIListen: *api, ClusterListen: *cluster, Join: []string{*join},
	})
	if err != nil {
		log.Fatal(err)
	}
	s := newScheduler(node)
	node.Serve(*listen, s.handler())
	node.OnActive(s.run)
	if err := node.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
