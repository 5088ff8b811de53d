package diagnose

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/join"
)

// other is another node, as retry_join names it.
type other struct {
	address string
	ask     *asker
	*answer // nil if it did not answer
}

// member is one server of the cluster.
type member struct {
	ID      string `json:"node_id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// otherNodes asks each of them.
func (r *run) otherNodes() {
	if r.shared() {
		r.skip("run it on each of the other nodes", "in storage %q the nodes find the active one alone: who else there is, no configuration says", r.cfg.Storage.Type)
		return
	}
	if r.cfg.Storage.Type != "raft" {
		r.ok("storage %q is of one node: there are none", r.cfg.Storage.Type)
		return
	}
	for _, j := range r.cfg.Storage.Raft.RetryJoin {
		if j.LeaderAPIAddr != "" && !r.isSelf(j) {
			r.other(j)
		}
	}
	if len(r.others) == 0 {
		r.skip("name the other nodes with retry_join, if there are any", "the configuration names none")
		return
	}
	r.leaderKnown()
	r.strangers()
}

// isSelf reports whether a node lists itself, as it may.
func (r *run) isSelf(j config.RetryJoin) bool {
	return strings.TrimRight(j.LeaderAPIAddr, "/") == r.cfg.APIAddr
}

func (r *run) other(j config.RetryJoin) {
	o := &other{address: strings.TrimRight(j.LeaderAPIAddr, "/"), ask: newAsker(j.LeaderAPIAddr, r.joinTLS(j))}
	r.others = append(r.others, o)
	got, err := r.look(o.ask)
	if err != nil {
		what, do := unreachable(err, o.address)
		r.fault(do, "%s is not reached: %s", o.address, what)
		return
	}
	if got.closed {
		r.fault("set leader_client_cert_file and leader_client_key_file", "%s asks for a client certificate, and retry_join has none for it", o.address)
		return
	}
	o.answer = got
	switch {
	case !*got.Initialized:
		r.warn("on one node of a new cluster: locum operator init; the others then join it", "%s is reached, and is in no cluster yet", o.address)
	case got.Removed:
		r.warn("take it out of retry_join, or let it join anew with an empty data directory", "%s was removed from its cluster", o.address)
	case got.Sealed:
		r.warn("locum operator unseal -address "+o.address, "%s is sealed", o.address)
	case got.Standby:
		r.ok("%s is unsealed, and standby", o.address)
	default:
		r.ok("%s is unsealed, and active", o.address)
	}
}

// leaderKnown finds a cluster in which nobody is active.
func (r *run) leaderKnown() {
	unsealed, initialized := 0, 0
	for _, o := range r.others {
		if o.answer == nil || !*o.Initialized {
			continue
		}
		initialized++
		if !o.Sealed && !o.Removed {
			unsealed++
		}
		if !o.Sealed && (!o.Standby || o.leader.Address != "") {
			return
		}
	}
	self := r.self != nil && !r.self.closed
	if self && !r.self.Sealed && (!r.self.Standby || r.self.leader.Address != "") {
		return
	}
	switch {
	case initialized == 0 && (!self || !*r.self.Initialized):
		r.warn("locum operator init, on one of them, for a new cluster; else correct retry_join", "no node that is reached is in a cluster: there is nothing to join")
	case unsealed == 0:
		r.fault("unseal a majority of the nodes: locum operator unseal", "no other node that is reached is unsealed: nobody can be active")
	default:
		r.fault("bring back a majority of the voters; if they are lost for good, see locum operator raft recover -help", "no node is active: a majority of the voters is not there, or they do not reach one another's cluster ports")
	}
}

// strangers finds nodes of different clusters, and of different versions.
func (r *run) strangers() {
	clusters, versions := map[string][]string{}, map[string][]string{}
	note := func(address string, a *answer) {
		if a.ClusterID != "" {
			clusters[a.ClusterID] = append(clusters[a.ClusterID], address)
		}
		if a.Version != "" {
			versions[a.Version] = append(versions[a.Version], address)
		}
	}
	if r.self != nil && !r.self.closed {
		note("this node", r.self)
	}
	for _, o := range r.others {
		if o.answer != nil {
			note(o.address, o.answer)
		}
	}
	if len(clusters) > 1 {
		r.fault("correct retry_join; a node that joined the wrong cluster is ended, its data directory emptied, and started again", "the nodes are of %d different clusters: %s", len(clusters), grouped(clusters))
	}
	if len(versions) > 1 {
		r.warn("bring all nodes to the same version, one after the other", "the nodes run different versions: %s", grouped(versions))
	}
}

func grouped(m map[string][]string) string {
	var parts []string
	for key, nodes := range m {
		parts = append(parts, key+" ("+strings.Join(nodes, ", ")+")")
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// live are the nodes that can be asked about the cluster.
func (r *run) live() []*other {
	var live []*other
	for _, o := range r.others {
		if o.answer != nil && *o.Initialized && !o.Sealed && !o.Removed {
			live = append(live, o)
		}
	}
	return live
}

// membership finds out whether this node belongs to the cluster of the others, whether its seal is theirs, and whether
// their cluster ports can be reached.
func (r *run) membership() {
	if r.shared() {
		r.ok("storage %q is shared: a node that reaches it and opens its seal is of the cluster", r.cfg.Storage.Type)
		return
	}
	if r.cfg.Storage.Type != "raft" {
		r.ok("storage %q is of one node", r.cfg.Storage.Type)
		return
	}
	live := r.live()
	if len(live) == 0 {
		if r.dir.joined {
			r.ok("this node, %s, has taken part in a cluster", r.dir.id)
		} else if len(r.others) == 0 && (r.self == nil || r.self.closed || !*r.self.Initialized) {
			r.warn("write a retry_join block for each of the other nodes, or: locum operator raft join; for a new cluster: locum operator init", "this node is in no cluster, and retry_join names none to join")
		}
		r.skip("run it again when one of the others is unsealed", "no other node can be asked about the cluster")
		return
	}
	r.sealFits(live[0])
	members := r.members(live)
	if members == nil {
		if r.dir.joined {
			r.ok("this node, %s, has taken part in a cluster", r.dir.id)
		} else {
			r.ok("this node is in no cluster yet, and can join through %s", live[0].address)
		}
		r.skip("run it again with a token that may read sys/storage/raft/configuration in LOCUM_TOKEN", "who the members are is not known, so their cluster ports are not, but for the active node's")
		if address := leaderPort(live); address != "" {
			r.reachMember(member{Name: "the active node", Address: address})
		}
		return
	}
	r.ownSeat(members)
	for _, m := range members {
		if m.ID != r.dir.id {
			r.reachMember(m)
		}
	}
}

func leaderPort(live []*other) string {
	for _, o := range live {
		if o.leader.ClusterAddr != "" {
			return hostPort(o.leader.ClusterAddr)
		}
	}
	return ""
}

// sealFits asks for what is asked first of a node that joins, and tries this node's key on it. Nothing is kept of it there.
func (r *run) sealFits(o *other) {
	if r.cfg.Seal.Type != "static" || r.OpenSeal == nil {
		return
	}
	opens, err := r.OpenSeal(r.cfg.Seal)
	if err != nil {
		return // told already
	}
	ctx, cancel := r.within()
	defer cancel()
	id := r.dir.id
	if id == "" {
		id = "diagnose"
	}
	var out struct {
		Data join.Challenge `json:"data"`
	}
	code, err := o.ask.do(ctx, http.MethodPost, "sys/storage/raft/bootstrap/challenge", join.NewRequest(id, r.cfg.NodeName, hostPort(r.cfg.ClusterAddr)), &out)
	if err != nil || code != http.StatusOK || len(out.Data.RootKey) == 0 {
		r.skip("run it again when there is an active node", "whether this node's seal key is the cluster's is not known: %s does not say", o.address)
		return
	}
	if err := opens(ctx, out.Data.RootKey); err != nil {
		r.fault("copy the key from a node of the cluster, or join the cluster that this key belongs to", "this node's seal key does not open the root key of the cluster of %s", o.address)
		return
	}
	r.ok("this node's seal key opens the cluster's root key")
}

// members asks for them, with the token.
func (r *run) members(live []*other) []member {
	if r.Token == "" {
		return nil
	}
	for _, o := range live {
		members := func() []member {
			ctx, cancel := r.within()
			defer cancel()
			ask := *o.ask
			ask.token = r.Token
			var out struct {
				Data struct {
					Config struct {
						Servers []member `json:"servers"`
					} `json:"config"`
				} `json:"data"`
			}
			if code, err := ask.do(ctx, http.MethodGet, "sys/storage/raft/configuration", nil, &out); err != nil || code != http.StatusOK {
				return nil
			}
			return out.Data.Config.Servers
		}()
		if len(members) > 0 {
			return members
		}
	}
	return nil
}

func (r *run) ownSeat(members []member) {
	i := slices.IndexFunc(members, func(m member) bool { return r.dir.id != "" && m.ID == r.dir.id })
	switch {
	case i >= 0 && members[i].Address != hostPort(r.cfg.ClusterAddr):
		r.warn("keep retry_join right: the node tells the others by it when it starts", "the cluster knows this node at %s, and cluster_addr is %s", members[i].Address, hostPort(r.cfg.ClusterAddr))
	case i >= 0 && members[i].Voter:
		r.ok("this node, %s, is a member of the cluster, and votes", r.dir.id)
	case i >= 0:
		r.ok("this node, %s, is a member of the cluster, and does not vote yet: it catches up", r.dir.id)
	case r.dir.joined:
		r.fault("end the node, empty its data directory, and start it: it joins as a new one", "this node, %s, was in a cluster, and is no member of this one: it was removed, or its data is of another cluster", r.dir.id)
	default:
		r.ok("this node is no member yet: it joins when it runs")
	}
}

// reachMember tries the cluster port of another server.
func (r *run) reachMember(m member) {
	name := m.Name
	if name == "" {
		name = m.ID
	}
	id, err := r.clusterPort(m.Address)
	switch {
	case err != nil:
		what, do := portTrouble(err, m.Address)
		r.fault(do, "the cluster port of %s, %s, is not reached: %s", name, m.Address, what)
	case m.ID != "" && id != m.ID:
		r.fault("correct the cluster_addr of both nodes, or remove the one that is gone: locum operator raft remove-peer "+m.ID, "at %s, where %s should be, another node answers (%s)", m.Address, name, id)
	default:
		r.ok("the cluster port of %s, %s, is reached, and takes raft", name, m.Address)
	}
}

// How far clocks may be apart. Nothing in Locum compares them; certificates and the lifetimes of tokens are read by each
// node's own, and logs are.
const (
	littleSkew = 2 * time.Second
	muchSkew   = 5 * time.Minute
)

// clocks compares this host's with the others', as exactly as whole seconds and the time of a round trip allow.
func (r *run) clocks() {
	asked := false
	for _, o := range r.others {
		if o.answer == nil || o.ServerTime == 0 {
			continue
		}
		asked = true
		ahead := skew(o.sent, o.took, o.ServerTime)
		do := "let both hosts follow the same time (chrony, systemd-timesyncd); it need not be exact"
		switch {
		case ahead.Abs() > muchSkew:
			r.fault(do, "the clock of %s is at least %s %s: certificates and tokens seem to have run out, or not to be valid yet", o.address, ahead.Abs().Round(time.Second), direction(ahead))
		case ahead.Abs() > littleSkew:
			r.warn(do, "the clock of %s is at least %s %s: tokens live longer or shorter after a change of the active node, and logs are hard to compare", o.address, ahead.Abs().Round(time.Second), direction(ahead))
		default:
			r.ok("the clock of %s agrees with the one here, as far as can be told over %s", o.address, rounded(o.took))
		}
	}
	if !asked {
		r.skip("run it again when one of the others answers", "there is no other clock to compare with")
	}
}

// skew is by how much at least the other clock is ahead; 0 if the two may agree. The answer was made at some time between
// sent and sent+took, and says only the second.
func skew(sent time.Time, took time.Duration, second int64) time.Duration {
	theirs := time.Unix(second, 0)
	if ahead := theirs.Sub(sent.Add(took)); ahead > 0 {
		return ahead
	}
	if behind := sent.Sub(theirs.Add(time.Second)); behind > 0 {
		return -behind
	}
	return 0
}

func direction(ahead time.Duration) string {
	if ahead < 0 {
		return "behind the one here"
	}
	return "ahead of the one here"
}
