package physicaltest

import "testing"

// Backend checks a store that keeps entries: every promise in the comments of physical.Backend, and P1.
func Backend(t *testing.T, h Harness) {
	t.Helper()
	runAll(t, h, backendChecks)
}

var backendChecks = []check{
	{"Caps", checkEntryCaps},
	{"GetPutDelete", checkGetPutDelete},
	{"Values", checkValues},
	{"Ownership", checkOwnership},
	{"Keys", checkKeys},
	{"OtherNodesSee", checkOtherNodesSee},
	{"EntriesSurviveRestart", checkEntriesSurviveRestart},
	{"ListFolders", checkListFolders},
	{"ListPages", checkListPages},
	{"ListAgainstModel", checkListAgainstModel},
	{"ListMany", checkListMany},
	{"CommitWhole", checkCommitWhole},
	{"Conditions", checkConditions},
	{"ConditionsSeeStateBefore", checkConditionsSeeStateBefore},
	{"Limits", checkLimits},
	{"AllOrNothing", checkAllOrNothing},
	{"OneClaimWins", checkOneClaimWins},
	{"CompareAndSwap", checkCompareAndSwap},
	{"Linearizable", checkLinearizable},
	{"FenceFirst", checkFenceFirst},
	{"FenceGuardsCommit", checkFenceGuardsCommit},
	{"FenceRises", checkFenceRises},
	{"FenceRace", checkFenceRace},
	{"FenceStopsWriters", checkFenceStopsWriters},
	{"FenceSurvivesRestart", checkFenceSurvivesRestart},
	{"CancelledBefore", checkCancelledBefore},
	{"CancelledDuring", checkCancelledDuring},
	{"BlackHole", checkBackendBlackHole},
	{"CutAfterSent", checkBackendCut},
	{"Closed", checkBackendClosed},
}
