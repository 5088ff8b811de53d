package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/physical"
)

// What operators order for a while: no automatic failover (pause), and nodes that take no part (maintenance). The active
// node stores it, so that it outlives every restart, and tells it to the standbys with each echo; a standby that starts
// reads it from the store. An order is answered when every connected node has confirmed it.

const (
	keyOrders    = "core/orders"
	ordersFormat = 1
	confirmWait  = 4 * time.Second // a few echoes
)

// orders are what is in force.
type orders struct {
	Format      int                  `json:"format"`
	Revision    uint64               `json:"revision"`         // rises with every change
	Paused      *time.Time           `json:"paused,omitempty"` // since when
	Maintenance map[string]time.Time `json:"maintenance,omitempty"`
}

func readOrders(ctx context.Context, view *barrier.View) (*orders, error) {
	e, err := view.Get(ctx, keyOrders)
	if errors.Is(err, physical.ErrNotFound) {
		return &orders{Format: ordersFormat}, nil
	}
	if err != nil {
		return nil, err
	}
	o := new(orders)
	if err := json.Unmarshal(e.Value, o); err != nil {
		return nil, fmt.Errorf("%s: %w", keyOrders, err)
	}
	if o.Format > ordersFormat {
		return nil, fmt.Errorf("%s: format %d was written by a newer version; this one knows %d: upgrade this node", keyOrders, o.Format, ordersFormat)
	}
	return o, nil
}

// inMaintenance reports whether the node of this name is.
func (o *orders) inMaintenance(name string) bool {
	if o == nil {
		return false
	}
	_, yes := o.Maintenance[name]
	return yes
}

func (o *orders) paused() bool { return o != nil && o.Paused != nil }

// firstOrders obeys, before the node stands in the election, what its store knows. A store that does not answer cannot give
// the lock either; what it knew comes with the active node's first echo.
func (u *unsealed) firstOrders() {
	ctx, cancel := context.WithTimeout(u.lifetime, confirmWait)
	defer cancel()
	u.orders.Store(nil) // of an earlier life
	view := u.barrier.View(nil)
	if h, err := readHistory(ctx, view); err == nil && len(h) > 0 {
		u.wasLast.Store(h[0].NodeID == u.id)
	}
	o, err := readOrders(ctx, view)
	if err != nil {
		u.log.Warn("what operators have ordered could not be read: taken from the active node later", "error", err)
		return
	}
	u.obey(o)
}

// obey makes orders known and has the election keep to them. Older ones than those known are passed over.
func (u *unsealed) obey(o *orders) {
	for {
		known := u.orders.Load()
		if known != nil && o.Revision <= known.Revision {
			return
		}
		if u.orders.CompareAndSwap(known, o) {
			if known != nil || o.Revision > 0 {
				u.log.Info("orders in force", "paused", o.paused(), "maintenance", slices.Sorted(maps.Keys(o.Maintenance)), "revision", o.Revision)
			}
			break
		}
	}
	u.applyOrders()
}

// applyOrders: a pause keeps others from taking over; who was active last may be so again, after a restart for instance.
func (u *unsealed) applyOrders() {
	o := u.orders.Load()
	if o == nil {
		return
	}
	u.election.SetCandidate(u.cfg.HA.Candidate && !o.inMaintenance(u.cfg.NodeName))
	if o.paused() && !u.wasLast.Load() {
		u.election.Pause()
	} else {
		u.election.Resume()
	}
	u.router.HelloChanged() // the orders, or that they are kept
}

// lastActive notes who was active last, as far as this node knows.
func (u *unsealed) lastActive(self bool) {
	if u.wasLast.Swap(self) != self {
		u.applyOrders()
	}
}

// takeOrders loads what is in force for a new term. A pause that this node was told to end while nobody was active ends now.
func (l *leading) takeOrders(ctx context.Context) error {
	u := l.node
	stored, err := readOrders(ctx, u.barrier.View(&l.term.Fence))
	if err != nil {
		return err
	}
	l.orders = stored
	if known := u.orders.Load(); known != nil && known.Revision > stored.Revision {
		return l.order(ctx, func(o *orders) {
			if !known.paused() {
				o.Paused = nil
			}
		})
	}
	u.obey(stored)
	return nil
}

// order changes what is in force.
func (l *leading) order(ctx context.Context, change func(*orders)) error {
	next := *l.orders
	next.Maintenance = maps.Clone(l.orders.Maintenance)
	if next.Maintenance == nil {
		next.Maintenance = map[string]time.Time{}
	}
	change(&next)
	next.Format, next.Revision = ordersFormat, l.orders.Revision+1
	if known := l.node.orders.Load(); known != nil {
		next.Revision = max(next.Revision, known.Revision+1)
	}
	data, err := json.Marshal(&next)
	if err != nil {
		return err
	}
	if err := l.node.barrier.View(&l.term.Fence).Commit(ctx, physical.Put(keyOrders, data)); err != nil {
		return err
	}
	l.orders = &next
	l.node.obey(&next)
	return nil
}

// Ordered is what is in force.
func (s *service) Ordered(context.Context) (api.Ordered, error) {
	o := s.node.orders.Load()
	return api.Ordered{Paused: o.paused(), Maintenance: slices.Sorted(maps.Keys(o.Maintenance))}, nil
}

// Pause suspends automatic failover, or ends that.
func (s *service) Pause(ctx context.Context, on bool) (api.Ordered, error) {
	s.ordering.Lock()
	defer s.ordering.Unlock()
	if s.orders.paused() != on {
		err := s.order(ctx, func(o *orders) {
			if o.Paused = nil; on {
				now := time.Now()
				o.Paused = &now
			}
		})
		if err != nil {
			return api.Ordered{}, err
		}
	}
	return s.confirmed(ctx), nil
}

// Maintenance takes a node out of the candidates and tells load balancers to leave it alone, or ends that. If it is the active
// one it hands over. Without force the last candidate stays.
func (s *service) Maintenance(ctx context.Context, node string, on, force bool) (api.Ordered, error) {
	n := s.node
	name := node
	if m, ok := n.members.find(node); ok {
		name = m.Name
	} else if node == n.id {
		name = n.cfg.NodeName
	} else if node != n.cfg.NodeName && on {
		return api.Ordered{}, api.Errorf(http.StatusBadRequest, "no node named %q is connected: locum operator members lists those that are", node)
	}
	self := name == n.cfg.NodeName
	s.ordering.Lock()
	defer s.ordering.Unlock()
	if on && !force && !s.otherCandidate(name) {
		return api.Ordered{}, api.Errorf(http.StatusBadRequest, "no other node could be active while %q is in maintenance: add -force if that is meant", name)
	}
	if s.orders.inMaintenance(name) != on {
		err := s.order(ctx, func(o *orders) {
			if delete(o.Maintenance, name); on {
				o.Maintenance[name] = time.Now()
			}
		})
		if err != nil {
			return api.Ordered{}, err
		}
	}
	done := s.confirmed(ctx)
	if on && self && len(n.members.candidates()) > 0 {
		done.HandsOver = true
		n.wg.Go(func() {
			if err := n.election.StepDown(n.lifetime, ""); err != nil {
				n.log.Error("step-down for maintenance", "error", err)
			}
		})
	}
	return done, nil
}

// otherCandidate reports whether some node but the one named could be active.
func (s *service) otherCandidate(name string) bool {
	n := s.node
	if name != n.cfg.NodeName && n.cfg.HA.Candidate && !s.orders.inMaintenance(n.cfg.NodeName) {
		return true
	}
	return slices.ContainsFunc(n.members.list(memberFit), func(m member) bool {
		return m.Name != name && m.Eligible && !s.orders.inMaintenance(m.Name)
	})
}

// confirmed waits until every connected node has said that it keeps to the orders in force, and names those that have not.
func (s *service) confirmed(ctx context.Context) api.Ordered {
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	for {
		var missing []string
		for _, m := range s.node.members.list(memberGone) {
			if m.OrdersKept < s.orders.Revision {
				missing = append(missing, m.Name)
			}
		}
		if len(missing) == 0 || !pauseFor(ctx, 20*time.Millisecond) {
			slices.Sort(missing)
			return api.Ordered{Paused: s.orders.paused(), Maintenance: slices.Sorted(maps.Keys(s.orders.Maintenance)), Unconfirmed: missing}
		}
	}
}

// Resume ends a pause on this node alone, while there is no active node that could do it for all: this node may then become
// active, and ends the pause for all. False: there is an active node, which is to be asked.
func (s *Server) Resume(ctx context.Context, token string, need api.Access) (bool, error) {
	u := s.life.Load()
	if u == nil || s.leaderNow().NodeID != "" {
		return false, nil
	}
	if err := s.Authorize(ctx, token, need); err != nil {
		return false, err
	}
	o := u.orders.Load()
	if !o.paused() {
		return false, nil
	}
	next := *o
	next.Paused, next.Revision = nil, o.Revision+1
	u.obey(&next)
	return true, nil
}
