package etcd_test

import (
	"testing"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// The server fails while it is used. P1 for a writer who is frozen beyond its TTL is among it.
func TestOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the outages run without it")
	}
	rounds := 1
	if storeserver.Faults() {
		rounds = 10
	}
	physicaltest.Outages(t, harness(startServer(t), storeserver.AnswerFaults()), rounds)
}
