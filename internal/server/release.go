package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/supervise"
)

// releasePlan is how a guardian releases the lock of its dead node (P7). It goes over the socket between the two, never through an
// argument or a file: it holds secrets.
type releasePlan struct {
	// Lock is the block of the data store with the lock, as gob has it, for JSON hides what is secret in it; empty on the
	// embedded store.
	Lock []byte `json:"lock,omitempty"`
	Node string `json:"node"`
	ID   string `json:"id"`

	// Peers hear of the death on the embedded store, proved by the node's own identity.
	Peers []physical.Peer `json:"peers,omitempty"`
	Ring  []byte          `json:"ring,omitempty"`
}

const (
	deathLimit    = 2 * time.Second        // for one peer to hear of a death
	deathTogether = 100 * time.Millisecond // that a peer that is reached waits for the others to be
	deathNotice   = 64 << 10               // bytes of a notice
	planEvery     = 200 * time.Millisecond // between two looks at who the members are
)

// keepPlan tells the guardian how to release the lock, for as long as this node leads: the members, and the authority, change.
func (u *unsealed) keepPlan(ctx context.Context) {
	for {
		u.tellPlan()
		if !pauseFor(ctx, planEvery) {
			return
		}
	}
}

func (u *unsealed) tellPlan() {
	if u.guardian == nil || !u.ha {
		return
	}
	plan := releasePlan{Node: u.cfg.NodeName, ID: u.id}
	var err error
	switch lock := u.cfg.HAStorage; {
	case u.raft != nil:
		err = u.raftPlan(&plan)
	case lock.Type != "":
		plan.Lock, err = encodeStorage(lock)
	default:
		plan.Lock, err = encodeStorage(u.cfg.Storage)
	}
	if err != nil {
		u.log.Error("the guardian is not told how to release the lock", "error", err)
		return
	}
	data, err := json.Marshal(plan)
	if err != nil {
		u.log.Error("the guardian is not told how to release the lock", "error", err)
		return
	}
	u.guardian.tellPlan(data)
}

func encodeStorage(s config.Storage) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(s)
	return b.Bytes(), err
}

func (u *unsealed) raftPlan(plan *releasePlan) error {
	identity := u.identity.Load()
	if identity == nil {
		return errors.New("no identity yet")
	}
	peers, err := u.raft.Peers()
	if err != nil {
		return err
	}
	for _, p := range peers {
		if p.ID != u.id {
			plan.Peers = append(plan.Peers, physical.Peer{ID: p.ID, Addr: p.Addr, Voter: p.Voter})
		}
	}
	plan.Ring, err = identity.Ring().Marshal()
	return err
}

// Release is what a guardian does with a plan, once nothing of the dead node's applications is left.
func Release(open Opener) supervise.Release {
	return func(ctx context.Context, data json.RawMessage, grant physical.Grant) error {
		var plan releasePlan
		if err := json.Unmarshal(data, &plan); err != nil {
			return fmt.Errorf("the plan for the lock's release: %w", err)
		}
		if len(plan.Lock) == 0 {
			return plan.tellPeers(ctx, grant)
		}
		var lock config.Storage
		if err := gob.NewDecoder(bytes.NewReader(plan.Lock)).Decode(&lock); err != nil {
			return fmt.Errorf("the plan for the lock's release: %w", err)
		}
		// As a lock alone where the store can be that, so that its other half need not answer.
		cfg := &config.Config{NodeName: plan.Node, Storage: config.Storage{Type: "inmem"}, HAStorage: lock}
		stores, err := open(ctx, cfg, physical.Host{NodeName: plan.Node})
		if err != nil {
			return err
		}
		defer func() { _ = closeStores(stores) }() // this process ends anyway
		if stores.Lock == nil {
			return fmt.Errorf("%q has no lock", lock.Type)
		}
		return stores.Lock.Release(ctx, grant, "")
	}
}

// tellPeers tells every peer of the death. It succeeds when one voter knows: the others hear of it by that one's request for votes.
func (p *releasePlan) tellPeers(ctx context.Context, grant physical.Grant) error {
	ring, err := cluster.ParseRing(p.Ring)
	if err != nil {
		return err
	}
	identity, err := cluster.NewPeerIdentity(ring, p.Node, p.ID)
	if err != nil {
		return err
	}
	notice, err := json.Marshal(grant)
	if err != nil {
		return err
	}
	// All connections are made first: a node that hears of the death asks the others for their votes at once, and gets none from
	// those that have not heard of it.
	var wg sync.WaitGroup
	var dialled sync.WaitGroup
	dialled.Add(len(p.Peers))
	together := make(chan struct{})
	go func() {
		dialled.Wait()
		close(together)
	}()
	errs := make([]error, len(p.Peers))
	for i, peer := range p.Peers {
		wg.Go(func() { errs[i] = tellPeer(ctx, identity, peer, notice, dialled.Done, together) })
	}
	wg.Wait()
	for i, peer := range p.Peers {
		if errs[i] == nil && peer.Voter {
			return nil
		}
	}
	return errors.Join(errs...) // nil where there are no peers: nobody waits
}

// tellPeer calls dialled once the peer is reached or not, waits a while until all are, and tells it.
func tellPeer(ctx context.Context, identity *cluster.PeerIdentity, peer physical.Peer, notice []byte, dialled func(), together <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, deathLimit)
	defer cancel()
	conn, err := cluster.Dial(ctx, peer.Addr, identity.ClientTLS(cluster.ALPNGuardian, peer.ID))
	dialled()
	if err != nil {
		return fmt.Errorf("%s: %w", peer.Addr, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deathLimit)); err != nil {
		return err
	}
	stragglers := time.NewTimer(deathTogether)
	defer stragglers.Stop()
	select {
	case <-together:
	case <-stragglers.C: // one is cut off: the others do not wait for it
	}
	if _, err := conn.Write(notice); err != nil {
		return fmt.Errorf("%s: %w", peer.Addr, err)
	}
	if err := conn.CloseWrite(); err != nil {
		return fmt.Errorf("%s: %w", peer.Addr, err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 16))
	if err == nil && string(answer) != "ok" {
		err = errors.New("not taken")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", peer.Addr, err)
	}
	return nil
}

// hearDeaths lets the guardians of other nodes tell this one that their node is dead and has left nothing behind: then its promise
// to that node ends at once. Nobody but a node's own guardian can say so of it.
func (s *Server) hearDeaths(identity *cluster.PeerIdentity) (remove func(), err error) {
	return s.port.Handle(cluster.Protocol{
		ALPN: cluster.ALPNGuardian, TLS: identity.ServerTLS,
		Serve: func(ctx context.Context, conn *tls.Conn) {
			if err := s.hearDeath(ctx, conn); err != nil {
				s.log.Warn("a guardian's notice was not taken", "node", cluster.PeerName(conn), "error", err)
			}
		},
	})
}

func (s *Server) hearDeath(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, deathLimit)
	defer cancel()
	if err := conn.SetDeadline(time.Now().Add(deathLimit)); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(conn, deathNotice))
	if err != nil {
		return err
	}
	var grant physical.Grant
	if err := json.Unmarshal(data, &grant); err != nil {
		return err
	}
	if id := cluster.PeerID(conn); id != grant.Record.Holder || id == s.id {
		return fmt.Errorf("%q speaks of %q", id, grant.Record.Holder)
	}
	if err := s.lock.Release(ctx, grant, ""); err != nil {
		return err
	}
	s.log.Info("a node is dead, as its guardian says", "node", grant.Record.Name, "term", grant.Record.Term)
	_, err = conn.Write([]byte("ok"))
	return err
}
