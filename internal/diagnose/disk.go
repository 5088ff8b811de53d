package diagnose

import (
	"fmt"
	"os"
	"slices"
	"time"
)

// How the disk is measured: small writes, each synced, as the log of raft makes them.
const (
	syncs     = 30
	syncSize  = 4096
	syncLimit = 2 * time.Second // for all together
)

// What raft needs, at performance = 1 ("lan"). Each write waits for a sync on a majority, and a leader whose own syncs come
// near its lease, of a quarter of a second, loses its leadership.
const (
	goodSync = 10 * time.Millisecond  // half of all should be faster
	badSync  = 100 * time.Millisecond // all should be faster
)

// Free space, in bytes, below which to warn, and below which a node is about to stop.
const (
	littleSpace = 1 << 30
	noSpace     = 128 << 20
)

func (r *run) disk() {
	if r.dir.path == "" {
		r.ok("nothing is kept on disk")
		return
	}
	need := uint64(0)
	if r.cfg.Storage.Type == "raft" {
		need = 3 * uint64(r.cfg.Storage.Raft.SnapshotSize) // the log, and two snapshots
	}
	if free, total, known := spaceOf(existing(r.dir.path)); known {
		r.space(free, total, need)
	}
	if !r.dir.usable {
		r.skip("run it again as Locum's user, once the directory is there", "the speed of the disk was not measured: there is no directory that can be written")
		return
	}
	took, err := measure(r.dir.path)
	if err != nil {
		r.fault("look at the disk, and at the system's log", "writing to %s fails: %s", r.dir.path, causeOf(err))
		return
	}
	performance := 1.0
	if r.cfg.Storage.Type == "raft" {
		performance = float64(r.cfg.Storage.Raft.Performance)
	}
	r.speed(took, performance)
}

func (r *run) space(free, total, need uint64) {
	const mib = 1 << 20
	text := fmt.Sprintf("%d MiB of %d MiB are free where %s lies", free/mib, total/mib, r.dir.path)
	switch {
	case free < noSpace+need/3:
		r.fault("make room: a node that cannot write its log stops", "%s", text)
	case free < littleSpace+need:
		r.warn("make room before it runs out: the log and two snapshots need three times snapshot_size", "%s", text)
	default:
		r.ok("%s", text)
	}
}

// measure writes and syncs a small file, and removes it.
func measure(dir string) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".diagnose-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = f.Close()
		if removed := os.Remove(f.Name()); err == nil {
			err = removed
		}
	}()
	data := make([]byte, syncSize)
	for start := time.Now(); len(took) < syncs && time.Since(start) < syncLimit; {
		began := time.Now()
		if _, err := f.WriteAt(data, 0); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// speed judges how long syncs took.
func (r *run) speed(took []time.Duration, performance float64) {
	slices.Sort(took)
	half, worst := took[len(took)/2], took[len(took)-1]
	good, bad := time.Duration(float64(goodSync)*performance), time.Duration(float64(badSync)*performance)
	text := fmt.Sprintf("half of %d small writes to %s are on disk within %s, the slowest took %s", len(took), r.dir.path, rounded(half), rounded(worst))
	do := "give the data directory a faster disk, of its own if it can be; else set performance = \"wan\" on all nodes, so that raft is more patient"
	switch {
	case half > bad:
		r.fault(do, "%s: leaders lose their leadership over that (at this performance setting it should be within %s)", text, rounded(good))
	case half > good || worst > bad:
		r.warn(do, "%s: at this performance setting it should be within %s, and never above %s", text, rounded(good), rounded(bad))
	default:
		r.ok("%s", text)
	}
}

func rounded(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
