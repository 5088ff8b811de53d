package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/join"
	"github.com/locum-ha/locum/physical"
)

// service is what the active node can be asked to do, during one term. It implements api.Service.
type service struct{ *leading }

// Authorize returns the bearer's token if it may have the access.
func (s *service) Authorize(ctx context.Context, token string, need api.Access) (*auth.Token, error) {
	info := forward.InfoFrom(ctx)
	return s.tokens.Authorize(ctx, auth.Secret(token), need, auth.Request{ID: info.Key, Slot: info.Slot, Repeat: info.Repeat})
}

// Seal seals this node, and returns when it is done: no step-down waits for this request. A request that came through a
// standby is answered as soon as the sealing has begun, since its connection ends with the leadership.
func (s *service) Seal(ctx context.Context) error {
	n := s.node.Server // whose goroutine it is: that of the unsealed life would wait for itself
	if forward.InfoFrom(ctx).ForwardedBy == "" {
		forward.Detach(ctx)
		return n.seal(context.WithoutCancel(ctx))
	}
	n.wg.Go(func() {
		if err := n.seal(n.lifetime); err != nil {
			n.log.Error("seal", "error", err)
		}
	})
	return nil
}

// StepDown begins to hand the leadership on. The node at which the request arrived waits, if that was asked for
// (stepdown.go); here it is one of the requests in flight, which the step-down waits for.
func (s *service) StepDown(_ context.Context, to string) error {
	n, id := s.node, ""
	if to != "" {
		m, ok := n.members.find(to)
		switch {
		case to == n.id || to == n.cfg.NodeName:
			return api.Errorf(http.StatusBadRequest, "%q is the active node already", to)
		case !ok:
			return api.Errorf(http.StatusBadRequest, "no standby named %q is connected: locum operator members lists those that are", to)
		case !m.Candidate:
			return api.Errorf(http.StatusBadRequest, "%q cannot become active: %s", to, m.Reason)
		}
		id = m.ID
	} else if len(n.members.candidates()) == 0 {
		return api.Errorf(http.StatusBadRequest, "no other node could take over now: locum operator members lists the nodes, and why each is not active")
	}
	n.wg.Go(func() {
		if err := n.election.StepDown(n.lifetime, id); err != nil {
			n.log.Error("step-down", "error", err)
		}
	})
	return nil
}

// Members lists the nodes, the active one first.
func (s *service) Members(context.Context) ([]api.Member, error) {
	n := s.node
	orders := n.orders.Load()
	list := []api.Member{{
		Hostname: n.cfg.NodeName, APIAddress: n.apiAddr, ClusterAddr: n.clusterAddr, ActiveNode: true,
		Version: n.opts.Version, Priority: n.cfg.HA.Priority, Term: s.term.Term, NodeID: n.id,
		Maintenance: orders.inMaintenance(n.cfg.NodeName),
	}}
	standbys := n.members.list(memberGone)
	sort.Slice(standbys, func(i, j int) bool { return standbys[i].Name < standbys[j].Name })
	for _, m := range standbys {
		echo := m.echo
		list = append(list, api.Member{
			Hostname: m.Name, APIAddress: m.APIAddr, ClusterAddr: m.ClusterAddr, LastEcho: &echo, Version: m.Version,
			EchoMS: m.rtt.Milliseconds(), SkewMS: m.skew.Milliseconds(), Priority: m.Priority, Term: m.Term,
			NodeID: m.ID, Reason: m.Reason, Maintenance: orders.inMaintenance(m.Name),
		})
	}
	return list, nil
}

// History lists the last leaderships, the newest first.
func (s *service) History(ctx context.Context) ([]api.Leadership, error) {
	return readHistory(ctx, s.node.barrier.View(&s.term.Fence))
}

// KeyStatus describes the encryption key in use.
func (s *service) KeyStatus(context.Context) (api.KeyStatus, error) {
	st, err := s.node.barrier.KeyStatus()
	return api.KeyStatus{Term: uint64(st.Term), InstallTime: st.InstallTime, Encryptions: st.Encryptions}, err
}

// Rotate makes a new encryption key and, on raft, begins to replace the cluster authority (authority.go).
func (s *service) Rotate(ctx context.Context) error {
	if err := s.node.barrier.Rotate(ctx, &s.term.Fence); err != nil {
		return err
	}
	return s.introduceAuthority(ctx)
}

// raftService is what the active node does for a cluster whose storage is raft. It implements api.Raft.
type raftService struct{ *leading }

// Configuration lists the servers.
func (s *raftService) Configuration(context.Context) (api.RaftConfiguration, error) {
	peers, err := s.node.raft.Peers()
	if err != nil {
		return api.RaftConfiguration{}, err
	}
	names := map[string]string{s.node.id: s.node.cfg.NodeName}
	for _, m := range s.node.members.list(memberGone) {
		names[m.ID] = m.Name
	}
	c := api.RaftConfiguration{Index: s.node.raft.Stats().CommitIndex}
	for _, p := range peers {
		c.Servers = append(c.Servers, api.RaftServer{
			NodeID: p.ID, Name: names[p.ID], Address: p.Addr, Leader: p.Leader, Voter: p.Voter, ProtocolVersion: "3",
		})
	}
	return c, nil
}

// RemovePeer takes a server out of the cluster; it may be named by identity or, while it is connected, by name.
func (s *raftService) RemovePeer(ctx context.Context, id string) error {
	if m, ok := s.node.members.find(id); ok {
		id = m.ID
	}
	return raftAnswer(s.node.raft.RemovePeer(ctx, id))
}

// Snapshot writes the whole state.
func (s *raftService) Snapshot(ctx context.Context, w io.Writer) error {
	return s.node.raft.Snapshot(ctx, w)
}

// Restore replaces the whole state, and lets this node activate anew with what is in it. A snapshot of another cluster
// has keys that this cluster's root key does not open: it is refused, and after a restore by force the nodes must be
// restarted and unsealed with that cluster's keys.
func (s *raftService) Restore(ctx context.Context, r io.Reader, force bool) error {
	n := s.node
	var checks []func(string, []byte) error
	if !force {
		checks = append(checks, s.ownSnapshot())
	}
	if err := n.raft.Restore(ctx, r, checks...); err != nil {
		if errors.Is(err, errOtherCluster) {
			return api.Errorf(http.StatusBadRequest, "%v", errOtherCluster)
		}
		if errors.Is(err, physical.ErrSnapshot) {
			return api.Errorf(http.StatusBadRequest, "%v", err)
		}
		return raftAnswer(err)
	}
	n.log.Warn("the whole state was replaced by a snapshot", "force", force)
	if err := n.barrier.ReloadKeyring(ctx); err != nil {
		n.log.Error("the restored keyring does not open with this cluster's root key: restart the nodes and unseal them with the other cluster's keys", "error", err)
	}
	// Not before the answer was sent: a standby that passed this request on would be cut off.
	forward.Detach(ctx)
	context.AfterFunc(ctx, func() { s.term.Abort(errRestored) })
	return nil
}

// errOtherCluster: restoring the snapshot would leave this cluster without its entries, and with others that it cannot read.
var errOtherCluster = errors.New("the snapshot is of another cluster: its keyring does not open with this cluster's root key; " +
	"to replace this cluster by that one, restore with -force (the path is snapshot-force), restart the nodes, and unseal them with that cluster's keys")

// ownSnapshot looks in a snapshot for a keyring that this cluster's root key opens.
func (s *raftService) ownSnapshot() func(key string, value []byte) error {
	found := false
	return func(key string, value []byte) error {
		switch {
		case key == barrier.KeyKeyring:
			found = true
			if err := s.node.barrier.CheckKeyring(value); err != nil {
				return fmt.Errorf("%w: %w", errOtherCluster, err)
			}
		case key == "" && !found:
			return fmt.Errorf("%w: it has none", errOtherCluster)
		}
		return nil
	}
}

// errRestored ends the leadership under which a snapshot was restored.
var errRestored = errors.New("a snapshot was restored")

// Challenge is the first round in which a new node and the cluster prove the root key to each other.
func (s *raftService) Challenge(ctx context.Context, request json.RawMessage) (any, error) {
	var r join.Request
	if err := json.Unmarshal(request, &r); err != nil {
		return nil, api.Errorf(http.StatusBadRequest, "the join request is not what package join sends: %v", err)
	}
	config, err := s.node.barrier.GetPlain(ctx, barrier.KeySealConfig)
	if err != nil {
		return nil, err
	}
	wrapped, err := s.node.barrier.GetPlain(ctx, barrier.KeyRootKey)
	if err != nil {
		return nil, err
	}
	c, err := s.node.door.Challenge(r, config, wrapped)
	if err != nil {
		return nil, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	return c, nil
}

// Answer is the second round: who proved the root key is taken in, and gets the cluster's authority.
func (s *raftService) Answer(ctx context.Context, answer json.RawMessage) (any, error) {
	var a join.Answer
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, api.Errorf(http.StatusBadRequest, "the answer is not what package join sends: %v", err)
	}
	key, err := s.node.barrier.DeriveKey(join.Purpose)
	if err != nil {
		return nil, err
	}
	if err := s.node.door.Verify(key, a); err != nil {
		s.node.log.Warn("a node that asked to join was refused", "node", a.Request.Name, "addr", a.Request.ClusterAddr, "error", err)
		return nil, api.Errorf(http.StatusForbidden, "%v", err)
	}
	ring, err := s.node.barrier.View(&s.term.Fence).Get(ctx, keyAuthority)
	if err != nil {
		return nil, err
	}
	if err := s.node.raft.AddPeer(ctx, a.Request.NodeID, a.Request.ClusterAddr); err != nil {
		return nil, raftAnswer(fmt.Errorf("take %q in: %w", a.Request.Name, err))
	}
	s.node.log.Info("node taken in", "node", a.Request.Name, "id", a.Request.NodeID, "addr", a.Request.ClusterAddr)
	return join.NewWelcome(key, a, ring.Value)
}

// raftAnswer gives the store's errors the status that they have over HTTP.
func raftAnswer(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, physical.ErrQuorum):
		return api.Errorf(http.StatusBadRequest, "%v: bring the others back first, or remove them", err)
	case errors.Is(err, physical.ErrNotFound):
		return api.Errorf(http.StatusNotFound, "%v: locum operator raft list-peers shows the members", err)
	case errors.Is(err, physical.ErrInvalid):
		return api.Errorf(http.StatusBadRequest, "%v", err)
	}
	return err
}
