package physicaltest

import "github.com/locum-ha/locum/physical"

// network is what can be done to the traffic of one node. Each returns how to mend it.
type network struct {
	isolate func() (heal func())
	cut     func() (heal func())
}

// network returns the harness's ways to disturb node n, and a simulated one where it has none.
func (s *scene) network(n int, simulated *Faults) network {
	by := func(real func(int) func(), fault Fault) func() func() {
		if real != nil {
			return func() func() { return real(n) }
		}
		return func() func() {
			simulated.Set(fault)
			return func() { simulated.Set(NoFault) }
		}
	}
	return network{isolate: by(s.store.Isolate, BlackHole), cut: by(s.store.CutAnswers, CutAnswer)}
}

// faultyBackend returns node n with faults that can be switched on. The wrapper does nothing to a node
// whose faults the harness causes.
func (s *scene) faultyBackend(n int) (physical.Backend, network) {
	s.Helper()
	b := NewFaultyBackend(s.backend(n))
	return b, s.network(n, &b.Faults)
}

// faultyLock is faultyBackend for the lock.
func (s *scene) faultyLock(n int) (physical.HABackend, network) {
	s.Helper()
	l := NewFaultyLock(s.lock(n))
	return l, s.network(n, &l.Faults)
}
