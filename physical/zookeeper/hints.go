package zookeeper

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// hints are what this node has last seen or made of nodes. With them most commits need not read before they write. They
// may be out of date, which does no harm: whatever is concluded from them is asserted in the multi.
type hints struct {
	mu      sync.Mutex
	deletes int32 // the last known number of deletions; -1: not known
	young   map[string]hint
	old     map[string]hint // what young was before it was full
	seeds   [len(sum{})]maphash.Seed
}

// hint says that a node with that version has data of that sum, unless something was deleted after so many deletions.
type hint struct {
	version int32
	deletes int32
	sum     sum
}

// sum tells values apart: two hashes of 64 bits, whose seeds nobody knows, cost a tenth of a cryptographic one.
type sum [2]uint64

// hintsKept is how many nodes are known of, at least.
const hintsKept = 4096

func newHints() *hints {
	return &hints{deletes: -1, young: make(map[string]hint), seeds: [...]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

func (h *hints) sum(value []byte) (s sum) {
	for i := range s {
		s[i] = maphash.Bytes(h.seeds[i], value)
	}
	return s
}

func (h *hints) get(node string) (hint, bool) {
	got, ok := h.young[node]
	if !ok {
		if got, ok = h.old[node]; ok {
			h.put(node, got)
		}
	}
	return got, ok
}

func (h *hints) put(node string, k hint) {
	if len(h.young) >= hintsKept {
		h.old, h.young = h.young, make(map[string]hint)
	}
	h.young[node] = k
}

func (h *hints) drop(node string) {
	delete(h.young, node)
	delete(h.old, node)
}

// guess makes the steps behind the fence from hints alone. It does not try where a folder may become empty, where an
// absent entry stays absent, and where a required value is not known to be there.
func (h *hints) guess(s *Store, ops []physical.Op) (steps []step, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var puts []physical.Op
	var absent []string
	compared := false
	for _, o := range ops {
		switch o.Kind {
		case physical.OpPut:
			puts = append(puts, o)
		case physical.OpRequireAbsent:
			absent = append(absent, o.Key)
		case physical.OpRequireValue:
			_, node := s.nodes(o.Key)
			known, ok := h.get(node)
			if !ok || h.deletes < 0 || known.deletes != h.deletes || known.sum != h.sum(o.Value) {
				return nil, false
			}
			compared = true
			steps = append(steps, checkStep(node, known.version))
		default:
			return nil, false
		}
	}
	if compared {
		steps = append([]step{checkStep(s.deletes, h.deletes)}, steps...)
	}
	made := make(map[string]bool)
	for _, o := range puts {
		folders, node := s.nodes(o.Key)
		required := slices.Contains(absent, o.Key)
		if _, known := h.get(node); known && !required {
			steps = append(steps, setStep(node, o.Value, -1))
			continue
		}
		absent = slices.DeleteFunc(absent, func(key string) bool { return key == o.Key })
		for _, folder := range folders {
			if _, known := h.get(folder); !known && !made[folder] {
				made[folder] = true
				steps = append(steps, createStep(folder, nil))
			}
		}
		steps = append(steps, createStep(node, o.Value))
	}
	return steps, len(absent) == 0
}

// learn takes note of a multi that was carried out; versions are what its steps gave.
func (h *hints) learn(s *Store, steps []step, versions []int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, st := range steps {
		switch {
		case i >= len(versions):
			return
		case st.path == s.deletes && st.op == opSetData:
			h.deletes = max(h.deletes, versions[i])
		case st.op == opSetData || st.op == opCreate:
			h.put(st.path, hint{version: versions[i], deletes: h.deletes, sum: h.sum(st.data)})
		case st.op == opDelete:
			h.drop(st.path)
		}
	}
}

// saw takes note of the number of deletions as it was before anything else was read.
func (h *hints) saw(deletes int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deletes = max(h.deletes, deletes)
}

// wrong forgets what a guess was made of.
func (h *hints) wrong(s *Store, ops []physical.Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range ops {
		folders, node := s.nodes(o.Key)
		for _, path := range append(folders, node) {
			h.drop(path)
		}
	}
}

// exist takes note of nodes that were read and are there.
func (h *hints) exist(folders []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, folder := range folders {
		if _, known := h.get(folder); !known {
			h.put(folder, hint{version: -1, deletes: -1})
		}
	}
}
