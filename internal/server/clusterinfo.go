package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// keyCluster holds what names the cluster to others: an id that is made with it and never changes.
const (
	keyCluster        = "core/cluster"
	clusterInfoFormat = 1
)

type clusterInfo struct {
	Format int    `json:"format"`
	ID     string `json:"id"` // a UUID
}

// newClusterInfo makes the entry of a new cluster.
func newClusterInfo() (physical.Op, error) {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562, version 4
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	data, err := json.Marshal(clusterInfo{Format: clusterInfoFormat, ID: id})
	return physical.Put(keyCluster, data), err
}

// readClusterInfo learns the cluster's id, for status. A node goes on without it.
func (s *Server) readClusterInfo(ctx context.Context) {
	entry, err := s.barrier.View(nil).Get(ctx, keyCluster)
	var info clusterInfo
	if err == nil {
		err = json.Unmarshal(entry.Value, &info)
	}
	if err == nil && info.Format > clusterInfoFormat {
		err = fmt.Errorf("format %d was written by a newer version; this one knows %d: upgrade this node", info.Format, clusterInfoFormat)
	}
	if err != nil {
		s.log.Warn("the cluster's id was not read", "error", err)
		return
	}
	s.clusterID.Store(&info.ID)
}
