package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"time"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/physical"
)

// How often a standby looks for the advertisement: where a look costs nothing (this host's own copy), and where it
// is a request to the store.
const (
	lookLocal  = 5 * time.Millisecond
	lookRemote = 25 * time.Millisecond  // while requests wait, and for lookHurry after the active node was lost
	lookSoon   = 100 * time.Millisecond // while no active node is known
	lookHurry  = 5 * time.Second
	lookLimit  = 5 * time.Second // for one look
	lookIdle   = time.Second     // while the active node answers; changes of the lock's holder cut it short
)

// follow keeps the router pointed at the active node, as the advertisement tells it, until ctx ends. It outlives the
// election at shutdown, since a node that stepped down forwards like any standby.
func (u *unsealed) follow(ctx context.Context) error {
	f := &follower{unsealed: u}
	for ctx.Err() == nil {
		f.look(ctx)
		f.note()
		f.wait(ctx)
	}
	return nil
}

// follower remembers what it saw last.
type follower struct {
	*unsealed
	seen  []byte // the advertisement as it is stored; nil if there was none, or if this node led since
	known bool   // it names another node, which is followed
	held  bool   // it names none, and the router was told

	complained time.Time
	stranger   stranger
}

func (f *follower) wait(ctx context.Context) {
	pause := lookLocal
	if !f.storage.Caps().LocalReads {
		pause = f.lookRemotely()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-f.kicked:
	}
}

// lookRemotely is when to look again in a store that is a round trip away. While requests wait the election is told so, too.
func (f *follower) lookRemotely() time.Duration {
	since := f.leaderless.Load()
	waits := f.leading.Load() == nil && (f.router.Held() > 0 || since != 0 && time.Since(time.Unix(0, since)) < lookHurry)
	if f.hurries.Swap(waits) != waits {
		f.election.Hurry(waits)
	}
	switch {
	case waits:
		return lookRemote
	case f.leading.Load() != nil || f.known && f.connected():
		return lookIdle
	}
	return lookSoon
}

// note keeps the time since when no active node is known, for metrics.
func (f *follower) note() {
	if f.leaderNow().NodeID != "" {
		f.leaderless.Store(0)
	} else {
		f.leaderless.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// look reads the advertisement and follows it if it is new. Its decision and an activation exclude each other: once
// this node leads, the router is not told anything else.
func (f *follower) look(ctx context.Context) {
	if f.leading.Load() != nil {
		*f = follower{unsealed: f.unsealed}
		return
	}
	f.lookAtHolder()
	// Compared as it is stored: a look that finds nothing new decrypts nothing.
	reading, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	stored, err := f.storage.Get(reading, keyLeader)
	if err == nil && f.seen != nil && bytes.Equal(stored.Value, f.seen) {
		return
	}
	f.role.Lock()
	defer f.role.Unlock()
	switch {
	case f.leading.Load() != nil || ctx.Err() != nil:
	case errors.Is(err, physical.ErrNotFound):
		f.hold(nil, "no node is active")
	case err != nil:
		// The store does not answer: whoever is followed may well be active still.
		f.log.Debug("advertisement not read", "error", err)
	default:
		f.take(reading, stored.Value)
	}
}

func (f *follower) take(ctx context.Context, stored []byte) {
	ad, err := f.advertisement(ctx)
	switch {
	case errors.Is(err, physical.ErrNotFound):
		f.hold(nil, "no node is active")
	case err != nil:
		// Perhaps it can be read the next time: it is not remembered as seen.
		f.hold(nil, "the active node's advertisement cannot be read")
		f.complain("advertisement cannot be read: this node stays standby and cannot forward", "error", err)
	case ad.NodeID == f.id:
		if ad.ClusterAddr != f.clusterAddr || ad.APIAddr != f.apiAddr {
			f.complain("another node has this node's name: give each its own node_name", "node", ad.Name, "its_api_addr", ad.APIAddr)
		}
		f.hold(stored, "this node was active and is not any more")
	default:
		f.followAd(stored, ad)
	}
}

func (f *follower) advertisement(ctx context.Context) (cluster.Advertisement, error) {
	entry, err := f.barrier.View(nil).Get(ctx, keyLeader)
	if err != nil {
		return cluster.Advertisement{}, err
	}
	return cluster.ParseAdvertisement(entry.Value)
}

func (f *follower) hold(seen []byte, cause string) {
	if !f.held {
		f.router.Hold(cause)
		f.holdServing(cause)
	}
	f.seen, f.known, f.held = seen, false, true
	f.leader.Store(nil)
}

// lookAtHolder says so when the lock is held by a node that this cluster does not know.
func (f *follower) lookAtHolder() {
	holder := f.election.State().Holder
	if holder.Holder == f.id || !f.stranger.stays(holder.Holder, f.leaderNow().NodeID, time.Now()) {
		return
	}
	f.log.Error("the HA lock is held by a node that has not advertised itself in this cluster's storage: is it another cluster's? Then give each cluster its own place for the lock",
		"holder", holder.Name, "lock", f.cfg.LockPlace())
}

// stranger is who holds the lock without being known as the active node.
type stranger struct {
	id    string
	since time.Time // that it does; later, when that was said
}

// A node that has just got the lock is not advertised yet; one that cannot become active gives the lock back before that.
const strangerAfter = time.Minute

// stays reports, once in a while, whether the holder of the lock has not been the known leader for long.
func (s *stranger) stays(holder, leader string, now time.Time) bool {
	switch {
	case holder == "" || holder == leader:
		*s = stranger{}
	case holder != s.id:
		*s = stranger{id: holder, since: now}
	case now.Sub(s.since) >= strangerAfter:
		s.since = now
		return true
	}
	return false
}

// complain logs at most once a second: a look comes round much more often.
func (f *follower) complain(message string, args ...any) {
	if now := time.Now(); now.Sub(f.complained) > time.Second {
		f.complained = now
		f.log.Error(message, args...)
	}
}

// followAd points the router at the node that the advertisement names.
func (f *follower) followAd(seen []byte, ad cluster.Advertisement) {
	f.seen = seen
	identity, err := cluster.NewStandbyIdentity(ad, f.cfg.NodeName, f.id)
	if err != nil {
		f.log.Error("no identity for the active node's term", "term", ad.Term, "error", err)
		return
	}
	addr, err := cluster.HostPort(ad.ClusterAddr)
	if err != nil {
		f.log.Error("the active node's cluster address cannot be used", "address", ad.ClusterAddr, "error", err)
		return
	}
	tlsConfig := identity.ClientTLS()
	f.leader.Store(&ad)
	f.seen, f.known, f.held = seen, true, false
	f.router.Follow(forward.Target{
		Term: ad.Term, NodeID: ad.NodeID, Name: ad.Name, APIAddr: ad.APIAddr, ClusterAddr: ad.ClusterAddr,
		Dial: func(ctx context.Context) (net.Conn, error) { return cluster.Dial(ctx, addr, tlsConfig) },
	})
	f.followServing(&ad, addr, identity)
	f.log.Info("following the active node", "node", ad.Name, "term", ad.Term, "cluster_addr", ad.ClusterAddr)
}
