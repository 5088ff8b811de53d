package clients

import (
	"maps"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// P5: while each client steps the active node down, at the active node and through a standby, all of them work on
// without an error in forwarding mode. In redirection mode a client may meet the change on its way, because it follows
// one redirect and no second; what it then finds is consistent (P3, P4).
func (s *stage) stepDown(t *testing.T) {
	active, standbys := s.roles(t)
	all, stop := s.workers(t, active, standbys[0])
	defer stop()
	progress(t, "at first", all)
	for _, k := range available(t) {
		for _, through := range []string{"active", "standby"} {
			active, standbys := s.roles(t)
			n := active
			if through == "standby" {
				n = standbys[0]
			}
			ok(t, k.name+": step-down at the "+through+" node", k.open(t, n.URL(), s.Token, "").StepDown(within(t, 20*time.Second)))
			_, err := s.WaitActive(within(t, 20*time.Second), active)
			ok(t, "another active node", err)
			progress(t, "after the step-down by "+k.name, all)
		}
	}
	s.unharmed(t, all, nil)
}

// P3, P6: the active node is killed. Clients of another node see no error in forwarding mode; those of the killed one go
// on at the next address. No write is lost or done twice.
func (s *stage) kill(t *testing.T) {
	active, standbys := s.roles(t)
	all, stop := s.workers(t, active, standbys[0])
	defer stop()
	progress(t, "at first", all)
	active.Kill()
	progress(t, "after the kill", all)
	s.unharmed(t, all, active)
	ok(t, "start of the killed node", active.Start())
	s.roles(t)
	progress(t, "after its return", all)
}

// unharmed checks that no node answered an error, and that in forwarding mode nobody met a failure who did not talk to
// the node that was killed.
func (s *stage) unharmed(t *testing.T, all []*worker, killed *cluster.Node) {
	t.Helper()
	for _, w := range all {
		w.mu.Lock()
		failures, refused := maps.Clone(w.failures), maps.Clone(w.refused)
		w.mu.Unlock()
		if len(refused) > 0 || !s.redirect && w.entry != killed && len(failures) > 0 {
			t.Errorf("%s: %v", w.name, failures)
		}
	}
}
