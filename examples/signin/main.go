// Command signin is a web server that signs users in, with Locum's cache built in. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/locum-ha/locum/cache"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "host:port for clients")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	env, err := cache.FromEnvironment(nil, nil) // HA_MODE, HA_HOSTS, CACHE_AUTH_TOKEN
	if err != nil {
		log.Fatal(err)
	}
	cfg := env.Config
	cfg.Logger = slog.Default()
	cfg.Caches = map[string]cache.Options{
		"codes":    {DefaultTTL: time.Minute},
		"sessions": {DefaultTTL: 30 * time.Minute, MaxEntries: 100_000},
	}
	node, err := cache.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: *listen, Handler: newService(node), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := node.Run(ctx); err != nil {
			log.Print(err)
		}
		stop()
	})
	wg.Go(func() { ended <- server.ListenAndServe() })
	select {
	case err := <-ended:
		log.Print(err)
		stop()
	case <-ctx.Done():
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}
	wg.Wait()
}
