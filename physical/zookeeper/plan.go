package zookeeper

import (
	"bytes"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// plan makes steps of a multi out of the ops of a commit, in two passes: which nodes to read, and, knowing them, what to do.
// Whatever was read and decides about the steps is asserted by one of them.
type plan struct {
	store   *Store
	ops     []physical.Op
	queries []query
	at      map[string]int // where in the queries a node's stands
	compare bool           // an op requires a value
	found   []finding
}

// newPlan chooses what to read: the number of deletions first, since it must not be newer than the rest.
func newPlan(s *Store, ops []physical.Op) *plan {
	p := &plan{store: s, ops: ops, at: make(map[string]int)}
	p.read(opExists, s.deletes)
	for _, o := range ops {
		if o.Kind == physical.OpRequireValue {
			p.compare = true
			_, node := s.nodes(o.Key)
			p.read(opGetData, node)
		}
	}
	for _, o := range ops {
		folders, node := s.nodes(o.Key)
		p.read(opExists, node)
		for _, folder := range folders {
			p.read(opExists, folder)
		}
	}
	return p
}

func (p *plan) read(op int32, node string) {
	if _, ok := p.at[node]; !ok {
		p.at[node] = len(p.queries)
		p.queries = append(p.queries, query{op: op, path: node})
	}
}

func (p *plan) node(path string) finding { return p.found[p.at[path]] }
func (p *plan) exists(path string) bool  { return p.node(path).err == nil }

// learn takes what was read, and returns ErrConflict if a condition does not hold.
func (p *plan) learn(found []finding) error {
	p.found = found
	for _, o := range p.ops {
		_, node := p.store.nodes(o.Key)
		switch {
		case o.Kind == physical.OpRequireAbsent && p.exists(node):
			return fmt.Errorf("%w: there is an entry at %q", physical.ErrConflict, o.Key)
		case o.Kind == physical.OpRequireValue && !p.exists(node):
			return fmt.Errorf("%w: there is no entry at %q", physical.ErrConflict, o.Key)
		case o.Kind == physical.OpRequireValue && !bytes.Equal(p.node(node).data, o.Value):
			return fmt.Errorf("%w: another value at %q", physical.ErrConflict, o.Key)
		}
	}
	return nil
}

// steps are the operations of the multi behind the fence.
func (p *plan) steps() []step {
	var checks, writes, removals []step
	made := make(map[string]bool)   // nodes that the writes create
	change := make(map[string]int)  // of the number of a folder's children
	absent := make(map[string]bool) // topmost nodes that must not be there
	if p.compare {
		checks = append(checks, checkStep(p.store.deletes, p.node(p.store.deletes).stat.version))
	}
	for _, o := range p.ops {
		folders, node := p.store.nodes(o.Key)
		exists := p.exists(node)
		switch {
		case o.Kind == physical.OpRequireValue:
			checks = append(checks, checkStep(node, p.node(node).stat.version))
		case o.Kind == physical.OpPut && exists:
			writes = append(writes, setStep(node, o.Value, -1))
		case o.Kind == physical.OpPut:
			writes = append(writes, p.creation(folders, node, o.Value, made, change)...)
		case o.Kind == physical.OpDelete && exists:
			removals = append(removals, deleteStep(node))
			p.remove(folders, change)
		default: // an entry that is not there, and must not be
			absent[p.topmost(folders, node)] = true
		}
	}
	for node := range absent {
		if !made[node] {
			checks = append(checks, createStep(node, nil), deleteStep(node))
		}
	}
	if len(removals) > 0 {
		// Only if nobody else has deleted anything: two who each leave a folder its other entry would leave it empty.
		removals = append(removals, setStep(p.store.deletes, nil, p.node(p.store.deletes).stat.version))
		removals = append(removals, p.emptied(change)...)
	}
	return append(append(checks, writes...), removals...)
}

// creation makes an entry, and the folders on its way that are not there.
func (p *plan) creation(folders []string, node string, value []byte, made map[string]bool, change map[string]int) []step {
	var steps []step
	parent := p.store.entries
	for _, folder := range folders {
		if !p.exists(folder) && !made[folder] {
			steps = append(steps, createStep(folder, nil))
			made[folder] = true
			change[parent]++
		}
		parent = folder
	}
	made[node] = true
	change[parent]++
	return append(steps, createStep(node, value))
}

// remove notes that an entry goes.
func (p *plan) remove(folders []string, change map[string]int) {
	if len(folders) > 0 {
		change[folders[len(folders)-1]]--
	}
}

// emptied removes the folders whose last child goes, the innermost first.
func (p *plan) emptied(change map[string]int) []step {
	var steps []step
	gone := make(map[string]bool)
	for _, o := range p.ops {
		folders, node := p.store.nodes(o.Key)
		if o.Kind != physical.OpDelete || !p.exists(node) {
			continue
		}
		for i := len(folders) - 1; i >= 0 && !gone[folders[i]]; i-- {
			if int(p.node(folders[i]).stat.children)+change[folders[i]] > 0 {
				break
			}
			gone[folders[i]] = true
			steps = append(steps, deleteStep(folders[i]))
			if i > 0 {
				change[folders[i-1]]--
			}
		}
	}
	return steps
}

// topmost is the outermost node that is missing on the way to an entry that is not there: while it is missing, so is
// the entry.
func (p *plan) topmost(folders []string, node string) string {
	for _, folder := range folders {
		if !p.exists(folder) {
			return folder
		}
	}
	return node
}

// folders are those that were read and are there, if no entry is removed that might take them with it.
func (p *plan) folders() []string {
	var all []string
	for _, o := range p.ops {
		if o.Kind == physical.OpDelete {
			return nil
		}
		folders, _ := p.store.nodes(o.Key)
		for _, folder := range folders {
			if p.exists(folder) {
				all = append(all, folder)
			}
		}
	}
	return all
}
