package supervise

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// P2: what a lease covers has ended by its deadline, so the kill comes before it.
func TestKillAt(t *testing.T) {
	for _, tc := range []struct {
		deadline boottime.Instant
		ttl      time.Duration
		want     boottime.Instant
	}{
		{0, time.Second, 0},
		{boottime.Instant(10 * time.Second), time.Second, boottime.Instant(9950 * time.Millisecond)},
		{boottime.Instant(10 * time.Second), 50 * time.Millisecond, boottime.Instant(9995 * time.Millisecond)},
		{boottime.Instant(10 * time.Second), time.Minute, boottime.Instant(9750 * time.Millisecond)},
		{boottime.Instant(time.Millisecond), time.Second, 1},
	} {
		if got := killAt(tc.deadline, tc.ttl); got != tc.want {
			t.Errorf("killAt(%v, %v) = %v, want %v", tc.deadline, tc.ttl, got, tc.want)
		}
	}
}

// The guardian's judgement, event by event.
func TestGuard(t *testing.T) {
	grant := &physical.Grant{Record: physical.Record{Term: 7}}
	lease := func(now, at boottime.Instant) guardEvent {
		return guardEvent{kind: guardLease, now: now, grant: grant, at: at}
	}
	type turn struct {
		ev   guardEvent
		want []guardEffect
	}
	for name, turns := range map[string][]turn{
		"the node dies: all trees end, only then the lock is released (P2, P7)": {
			{lease(1, 100), []guardEffect{{kind: doArm, at: 100}}},
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{guardEvent{kind: guardStart, now: 2, id: 2}, []guardEffect{{kind: doStart, id: 2}}},
			{guardEvent{kind: guardNodeGone, now: 3}, []guardEffect{{kind: doKill, id: 1, cause: causeNode}, {kind: doKill, id: 2, cause: causeNode}}},
			{guardEvent{kind: guardEnded, now: 4, id: 2}, nil},
			{guardEvent{kind: guardEnded, now: 5, id: 1}, []guardEffect{{kind: doRelease, grant: grant}}},
			{guardEvent{kind: guardTick, now: 200}, nil},
			{guardEvent{kind: guardReleased, now: 201}, []guardEffect{{kind: doExit}}},
		},
		"the node is frozen: its trees end when the lease is over": {
			{lease(1, 100), []guardEffect{{kind: doArm, at: 100}}},
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{guardEvent{kind: guardTick, now: 99}, []guardEffect{{kind: doArm, at: 100}}},
			{guardEvent{kind: guardTick, now: 100}, []guardEffect{{kind: doKill, id: 1, cause: causeLease}}},
			{guardEvent{kind: guardEnded, now: 101, id: 1}, nil},
			{guardEvent{kind: guardStart, now: 102, id: 2}, []guardEffect{{kind: doRefuse, id: 2}}},
			{lease(110, 200), []guardEffect{{kind: doArm, at: 200}}},
			{guardEvent{kind: guardStart, now: 112, id: 3}, []guardEffect{{kind: doStart, id: 3}}},
		},
		"what goes beyond the lease is started and left to run when that is over, and not when the node is gone": {
			{lease(1, 100), []guardEffect{{kind: doArm, at: 100}}},
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{guardEvent{kind: guardStart, now: 3, id: 2, beyond: true}, []guardEffect{{kind: doStart, id: 2}}},
			{guardEvent{kind: guardTick, now: 100}, []guardEffect{{kind: doKill, id: 1, cause: causeLease}}},
			{guardEvent{kind: guardEnded, now: 101, id: 1}, nil},
			{guardEvent{kind: guardStart, now: 102, id: 3, beyond: true}, []guardEffect{{kind: doStart, id: 3}}},
			{guardEvent{kind: guardNodeGone, now: 103}, []guardEffect{{kind: doKill, id: 2, cause: causeNode}, {kind: doKill, id: 3, cause: causeNode}}},
			{guardEvent{kind: guardStart, now: 104, id: 4, beyond: true}, []guardEffect{{kind: doRefuse, id: 4}}},
		},
		"a lease that comes too late kills": {
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{lease(101, 100), []guardEffect{{kind: doArm, at: 100}}},
			{guardEvent{kind: guardTick, now: 101}, []guardEffect{{kind: doKill, id: 1, cause: causeLease}}},
		},
		"a lease that comes too late kills nothing if the next has come with it": {
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{lease(101, 100), []guardEffect{{kind: doArm, at: 100}}},
			{lease(101, 200), []guardEffect{{kind: doArm, at: 200}}},
			{guardEvent{kind: guardTick, now: 101}, []guardEffect{{kind: doArm, at: 200}}},
			{guardEvent{kind: guardTick, now: 200}, []guardEffect{{kind: doKill, id: 1, cause: causeLease}}},
		},
		"between leases a warm application runs on": {
			{lease(1, 100), []guardEffect{{kind: doArm, at: 100}}},
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{lease(3, 0), []guardEffect{{kind: doArm}}},
			{guardEvent{kind: guardTick, now: 150}, []guardEffect{{kind: doArm}}},
			{guardEvent{kind: guardStart, now: 160, id: 2}, []guardEffect{{kind: doStart, id: 2}}},
			// Whether the lock was released before the node died is not known: a release of one that is not held any more does nothing.
			{guardEvent{kind: guardNodeGone, now: 170}, []guardEffect{{kind: doKill, id: 1, cause: causeNode}, {kind: doKill, id: 2, cause: causeNode}}},
			{guardEvent{kind: guardEnded, now: 171, id: 1}, nil},
			{guardEvent{kind: guardEnded, now: 171, id: 2}, []guardEffect{{kind: doRelease, grant: grant}}},
		},
		"a node that says good-bye has released its lock itself": {
			{lease(1, 100), []guardEffect{{kind: doArm, at: 100}}},
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{guardEvent{kind: guardBye, now: 3}, nil},
			{guardEvent{kind: guardNodeGone, now: 4}, []guardEffect{{kind: doKill, id: 1, cause: causeNode}}},
			{guardEvent{kind: guardEnded, now: 5, id: 1}, []guardEffect{{kind: doExit}}},
		},
		"nothing is started for a node that is gone": {
			{guardEvent{kind: guardNodeGone, now: 1}, []guardEffect{{kind: doExit}}},
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doRefuse, id: 1}}},
		},
		"only what runs is killed": {
			{guardEvent{kind: guardKill, now: 1, id: 9}, nil},
			{guardEvent{kind: guardStart, now: 2, id: 1}, []guardEffect{{kind: doStart, id: 1}}},
			{guardEvent{kind: guardKill, now: 3, id: 1}, []guardEffect{{kind: doKill, id: 1, cause: causeAsked}}},
		},
	} {
		var g guard
		for i, turn := range turns {
			var got []guardEffect
			g, got = stepGuard(g, turn.ev)
			if diff := cmp.Diff(turn.want, got, cmp.AllowUnexported(guardEffect{})); diff != "" {
				t.Errorf("%s, turn %d:\n%s", name, i, diff)
			}
		}
	}
}
