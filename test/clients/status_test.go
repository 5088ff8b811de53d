package clients

import (
	"testing"
	"time"
)

// What a node says of itself and of the others is read by each client as by Vault's own server.
func (p *place) status(t *testing.T) {
	ctx := within(t, 20*time.Second)
	c := p.client(t)
	active, _ := p.roles(t)

	h, err := c.Health(ctx)
	ok(t, "health", err)
	if !h.Initialized || h.Sealed || h.Standby == p.active || h.Version == "" || h.ClusterName != "test" || h.ServerTime == 0 {
		t.Errorf("health: %+v", h)
	}

	l, err := c.Leader(ctx)
	ok(t, "leader", err)
	if !l.HAEnabled || l.IsSelf != p.active || l.Address != active.URL() || l.ClusterAddress != "https://"+active.ClusterAddress() {
		t.Errorf("leader: %+v", l)
	}
	if l.ActiveTime.After(time.Unix(0, 0)) != p.active { // on one machine: one clock
		t.Errorf("active since %v, active: %v", l.ActiveTime, p.active)
	}

	st, err := c.SealStatus(ctx)
	ok(t, "seal status", err)
	if st.Type != "static" || !st.Initialized || st.Sealed || st.StorageType != "raft" || st.ClusterName != "test" || st.Version != h.Version {
		t.Errorf("seal status: %+v", st)
	}

	done, err := c.Initialized(ctx)
	if err != nil || !done {
		t.Errorf("initialised: %v, %v", done, err)
	}
	_, _, err = c.Init(ctx, 1, 1)
	failed(t, "second init", err, 400, "already initialised")

	members, err := c.Members(ctx)
	ok(t, "members", err)
	seen := map[string]bool{}
	for _, m := range members {
		seen[m.APIAddress] = true
		if m.Active != (m.APIAddress == active.URL()) || m.Hostname == "" || m.ClusterAddress == "" || m.Version != h.Version {
			t.Errorf("member: %+v", m)
		}
		if (m.LastEcho == nil) != m.Active || m.LastEcho != nil && time.Since(*m.LastEcho) > time.Minute {
			t.Errorf("%s was heard of at %v", m.APIAddress, m.LastEcho)
		}
	}
	for _, n := range p.Nodes {
		if !seen[n.URL()] {
			t.Errorf("%s is missing among %d members", n.Name, len(members))
		}
	}
}
