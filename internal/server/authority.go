package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/physical"
)

// The cluster authority signs the identities that raft's traffic is bound to. It is replaced by "operator rotate", and when it
// is authorityAge old, in steps, each a commit of the ring of authorities: a new one is introduced, then leaves are minted from it, then the old
// one goes. A step is taken only when every member of the cluster has told, in its hello, that it has taken the one before
// over. So a node that is down holds a rotation up, and never comes back to a cluster that does not know it.

const trustEvery = time.Second

// authorityAge is after what time a rotation begins by itself. Nothing depends on it: an authority does not run out.
const authorityAge = 90 * 24 * time.Hour

// trust takes a new ring of authorities over when the store has one, until ctx ends.
func (u *unsealed) trust(ctx context.Context) {
	var seen []byte
	for {
		if stored, err := u.storage.Get(ctx, keyAuthority); err == nil && !bytes.Equal(stored.Value, seen) {
			if err := u.takeAuthority(ctx, stored.Value); err == nil {
				seen = stored.Value
			} else if ctx.Err() == nil {
				u.log.Warn("cluster authority not taken over", "error", err)
			}
		}
		if !pauseFor(ctx, trustEvery) {
			return
		}
	}
}

func (u *unsealed) takeAuthority(ctx context.Context, stored []byte) error {
	entry, err := u.barrier.View(nil).Get(ctx, keyAuthority)
	if err != nil {
		return err
	}
	ring, err := cluster.ParseRing(entry.Value)
	if err != nil {
		return err
	}
	if err := u.identity.Load().Update(ring); err != nil {
		return err
	}
	sum := sha256.Sum256(stored) // every member has the same bytes
	mark := hex.EncodeToString(sum[:8])
	if was := u.authority.Swap(&mark); was != nil && *was != mark {
		u.log.Info("cluster authorities taken over", "trusted", ring.Len())
	}
	return nil
}

// introduceAuthority is the first step. It does nothing while a rotation is under way.
func (l *leading) introduceAuthority(ctx context.Context) error {
	if l.node.raft == nil || l.node.identity.Load().Ring().Len() != 1 {
		return nil
	}
	// The newer of two is known by its time, in whole seconds, whatever this node's clock says.
	now := time.Now()
	if next := l.node.identity.Load().Ring().Since().Add(time.Second); now.Before(next) {
		now = next
	}
	authority, err := cluster.NewClusterAuthority(now)
	if err != nil {
		return err
	}
	return l.putAuthority(ctx, l.node.barrier.View(&l.term.Fence), l.node.identity.Load().Ring().Introduce(authority))
}

func (l *leading) putAuthority(ctx context.Context, view *barrier.View, ring cluster.Ring) error {
	data, err := ring.Marshal()
	if err != nil {
		return err
	}
	if err := view.Commit(ctx, physical.Put(keyAuthority, data)); err != nil {
		return fmt.Errorf("cluster authority: %w", err)
	}
	return nil
}

// rotateAuthority takes the further steps, each once all members have taken over the one before.
func (l *leading) rotateAuthority(ctx context.Context, view *barrier.View) {
	for pauseFor(ctx, 2*trustEvery) {
		ring := l.node.identity.Load().Ring()
		due := ring.Len() == 1 && time.Since(ring.Since()) > time.Duration(l.node.authorityAge.Load())
		if ring.Len() < 2 && !due || !l.allTrust() {
			continue // not begun by itself while a member is away: it would have to wait for that one
		}
		if due {
			if err := l.introduceAuthority(ctx); err != nil {
				l.node.log.Warn("rotation of the cluster authority", "error", err)
			} else {
				l.node.log.Info("rotation of the cluster authority", "step", "a new one is introduced", "age", authorityAge.String())
			}
			continue
		}
		next, step := ring.Promote(), "minting from the new one"
		if ring.Promoted() {
			next, step = ring.Retire(), "the old one is retired"
		}
		if err := l.putAuthority(ctx, view, next); err != nil {
			l.node.log.Warn("rotation of the cluster authority", "error", err)
			continue
		}
		l.node.log.Info("rotation of the cluster authority", "step", step)
	}
}

// allTrust reports whether every member of the cluster has taken over what this node has, which must be what is stored.
func (l *leading) allTrust() bool {
	n := l.node
	mine := n.authority.Load()
	stored, err := n.storage.Get(n.lifetime, keyAuthority)
	if mine == nil || err != nil {
		return false
	}
	if sum := sha256.Sum256(stored.Value); *mine != hex.EncodeToString(sum[:8]) {
		return false
	}
	peers, err := n.raft.Peers()
	if err != nil {
		return false
	}
	told := map[string]string{n.id: *mine}
	for _, m := range n.members.list(memberFit) {
		told[m.ID] = m.Authority
	}
	for _, p := range peers {
		if told[p.ID] != *mine {
			return false
		}
	}
	return true
}
