package server

import (
	"context"
	"net/http"
	"time"

	"github.com/locum-ha/locum/internal/listener"
)

// openLocal opens the listener that applications find in LOCUM_ADDR: plain HTTP on the loopback address, at a port of its own.
func (s *Server) openLocal() error {
	if len(s.cfg.Applications) == 0 {
		return nil
	}
	l, err := listener.New(listener.Config{
		Network: "tcp", Address: "127.0.0.1:0", Handler: s.whileDraining(s.handler()), Logger: s.log.With("part", "local listener"),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MinBodyRate: 256, MaxHeaderBytes: 64 << 10,
	})
	if err != nil {
		return err
	}
	if err := l.Open(); err != nil {
		return err
	}
	s.local = l
	return nil
}

// closeLocal ends it, after the applications.
func (s *Server) closeLocal() {
	if s.local == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.local.Shutdown(ctx); err != nil {
		s.log.Debug("the local listener's connections were cut", "error", err)
	}
}

// localAddress is what stands in LOCUM_ADDR.
func (s *Server) localAddress() string {
	if s.local == nil {
		return ""
	}
	return "http://" + s.local.Addr().String()
}

// whileDraining serves what an application asks while its node steps down: others' requests are held by then, until the next node
// is active, and an application that stores its last state before it ends would wait for its own end.
func (s *Server) whileDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := s.life.Load()
		if u == nil {
			next.ServeHTTP(w, r)
			return
		}
		l := u.leading.Load()
		if l == nil || !l.draining.Load() || local(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		rec := newRecorder()
		l.handler.ServeHTTP(rec, r)
		if !l.term.Lease.Valid() { // P4: after the state was read, before the answer is sent
			answerJSON(w, http.StatusServiceUnavailable, map[string]any{"errors": []string{"this node is not active any more"}, "processed": "unknown"})
			return
		}
		rec.sendTo(w)
	})
}

// local reports whether every node answers the path itself.
func local(path string) bool {
	switch path {
	case "/v1/sys/health", "/v1/sys/live", "/v1/sys/ready", "/v1/sys/active", "/v1/sys/standby", "/v1/sys/leader", "/v1/system/leader",
		"/v1/sys/cache", "/v1/sys/seal-status", "/v1/sys/metrics", "/v1/sys/init", "/v1/sys/unseal", "/v1/sys/storage/raft/join":
		return true
	}
	return false
}
