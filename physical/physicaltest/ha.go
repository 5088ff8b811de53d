package physicaltest

import "testing"

// HABackend checks a store that holds the HA lock: every promise in the comments of physical.HABackend,
// physical.Watcher and physical.Yielder, which P1, P2 and P4 rest on.
func HABackend(t *testing.T, h Harness) {
	t.Helper()
	runAll(t, h, lockChecks)
}

var lockChecks = []check{
	{"Caps", checkLockCaps},
	{"AcquireHeldRelease", checkAcquireHeldRelease},
	{"Invalid", checkLockInvalid},
	{"RenewKeeps", checkRenewKeeps},
	{"RunsOut", checkRunsOut},
	{"RenewAfterLoss", checkRenewAfterLoss},
	{"ReleaseAfterLoss", checkReleaseAfterLoss},
	{"OlderGrantOfOneself", checkOlderGrantOfOneself},
	{"GrantTravels", checkGrantTravels},
	{"TermsRise", checkTermsRise},
	{"TermsRiseOverRunningOut", checkTermsRiseOverRunningOut},
	{"TermsRiseOverRestart", checkTermsRiseOverRestart},
	{"CloseLeavesLock", checkCloseLeavesLock},
	{"Yield", checkYield},
	{"WatchWakes", checkWatchWakes},
	{"WatchWakesWhenLockRunsOut", checkWatchWakesWhenLockRunsOut},
	{"WatchEnds", checkWatchEnds},
	{"CancelledBefore", checkLockCancelledBefore},
	{"CancelledDuring", checkLockCancelledDuring},
	{"CutAfterSent", checkLockCut},
	{"BlackHole", checkLockBlackHole},
	{"NoOverlap", checkNoOverlap},
	{"Contest", checkContest},
	{"Closed", checkLockClosed},
}
