package etcd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/locum-ha/locum/physical"
)

// state is the lock as one linearizable read shows it.
type state struct {
	record   physical.Record // without a Holder while the lock is free
	lease    clientv3.LeaseID
	termAt   int64 // the revision of the record of the last term; 0 if there is none
	revision int64 // of the read
	epoch    uint64
}

func (s *Store) readLock(ctx context.Context) (state, error) {
	resp, err := asked(ctx, s, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.client.Txn(ctx).Then(clientv3.OpGet(s.holder), clientv3.OpGet(s.term)).Commit()
	})
	if err != nil {
		return state{}, failure(ctx, err, false)
	}
	return decodeState(resp, resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs)
}

func decodeState(resp *clientv3.TxnResponse, holder, term []*mvccpb.KeyValue) (state, error) {
	st := state{revision: resp.Header.Revision, epoch: resp.Header.RaftTerm}
	var err error
	if len(term) > 0 {
		st.termAt = term[0].ModRevision
	}
	if len(holder) > 0 {
		st.lease = clientv3.LeaseID(holder[0].Lease)
		st.record, err = decodeRecord(holder)
		return st, err
	}
	st.record, err = decodeRecord(term)
	st.record.Holder = ""
	return st, err
}

// attempts is how often a transaction is tried that others come before.
const attempts = 3

// Acquire makes one attempt to take the lock. TTLs are in whole seconds, and the servers may lengthen them: the grant
// says what was given.
func (s *Store) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	defer end()
	if r.Holder == "" || ttl <= 0 {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v", physical.ErrInvalid, r.Holder, ttl)
	}
	now, err := s.readLock(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	if now.record.Holder != "" {
		return physical.Grant{}, &physical.HeldError{Record: now.record}
	}
	seconds := int64((ttl + time.Second - 1) / time.Second)
	lease, err := asked(ctx, s, func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) { return s.client.Grant(ctx, seconds) })
	if err != nil {
		return physical.Grant{}, failure(ctx, err, false) // a lease alone is no lock, and runs out
	}
	g := physical.Grant{
		Record: physical.Record{Holder: r.Holder, Name: r.Name},
		TTL:    time.Duration(lease.TTL) * time.Second,
		Token:  binary.BigEndian.AppendUint64(nil, uint64(lease.ID)),
	}
	for range attempts {
		g.Record.Term = max(now.record.Term, above) + 1
		if now, err = s.take(ctx, g.Record, lease.ID, now.termAt); err != nil {
			return s.settle(ctx, g, lease.ID, err)
		}
		if now.lease == lease.ID {
			return g, nil
		}
		if now.record.Holder != "" {
			break
		}
	}
	s.revoke(ctx, lease.ID)
	if now.record.Holder == "" {
		return physical.Grant{}, fmt.Errorf("%w: others took the lock and released it %d times meanwhile", physical.ErrUnavailable, attempts)
	}
	return physical.Grant{}, &physical.HeldError{Record: now.record}
}

// take puts the record in place if the lock is free and its last term is the one read at termAt. It returns the lock as
// it is then.
func (s *Store) take(ctx context.Context, r physical.Record, lease clientv3.LeaseID, termAt int64) (state, error) {
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(s.holder), "=", 0), clientv3.Compare(clientv3.ModRevision(s.term), "=", termAt)).
		Then(clientv3.OpPut(s.holder, encodeRecord(r), clientv3.WithLease(lease)), clientv3.OpPut(s.term, encodeRecord(physical.Record{Name: r.Name, Term: r.Term}))).
		Else(clientv3.OpGet(s.holder), clientv3.OpGet(s.term)).
		Commit()
	switch {
	case err != nil:
		return state{}, err
	case resp.Succeeded:
		return state{record: r, lease: lease}, nil
	}
	return decodeState(resp, resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs)
}

// settle finds out what became of a take that failed with err: the lease tells whose the lock is.
func (s *Store) settle(ctx context.Context, g physical.Grant, lease clientv3.LeaseID, err error) (physical.Grant, error) {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return physical.Grant{}, fmt.Errorf("%w: the lease ran out before the lock was taken", physical.ErrUnavailable)
	}
	if now, again := s.readLock(ctx); again == nil && now.lease == lease {
		return g, nil
	}
	return physical.Grant{}, failure(ctx, err, true)
}

func leaseOf(g physical.Grant) clientv3.LeaseID {
	if len(g.Token) != 8 {
		return clientv3.NoLease
	}
	return clientv3.LeaseID(binary.BigEndian.Uint64(g.Token))
}

// holds reports whether g is the grant in force.
func (st state) holds(g physical.Grant) bool {
	return st.lease != clientv3.NoLease && st.lease == leaseOf(g) && st.record.Term == g.Record.Term && st.record.Holder == g.Record.Holder
}

// Renew extends the grant by its TTL. The keep-alive counts only if etcd's leader was the same one until the read behind
// it: see the package's Design.
func (s *Store) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	defer end()
	if leaseOf(g) == clientv3.NoLease {
		return physical.Grant{}, fmt.Errorf("%w: the grant names no lease", physical.ErrLost)
	}
	for range attempts {
		alive, err := asked(ctx, s, func(ctx context.Context) (*clientv3.LeaseKeepAliveResponse, error) {
			return s.client.KeepAliveOnce(ctx, leaseOf(g))
		})
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return physical.Grant{}, fmt.Errorf("%w: the lease has run out", physical.ErrLost)
		}
		if err != nil {
			return physical.Grant{}, failure(ctx, err, false)
		}
		now, err := s.readLock(ctx)
		if err != nil {
			return physical.Grant{}, err
		}
		if !now.holds(g) {
			return physical.Grant{}, fmt.Errorf("%w: term %d is given", physical.ErrLost, now.record.Term)
		}
		if alive.ResponseHeader.RaftTerm == now.epoch {
			g.TTL = time.Duration(alive.TTL) * time.Second
			return g, nil
		}
	}
	return physical.Grant{}, fmt.Errorf("%w: etcd's leader changed meanwhile", physical.ErrUnavailable)
}

// Release gives the lock up.
func (s *Store) Release(ctx context.Context, g physical.Grant, next string) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	lease := leaseOf(g)
	if lease == clientv3.NoLease {
		return nil
	}
	_, err = s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.LeaseValue(s.holder), "=", lease)).
		Then(clientv3.OpDelete(s.holder), clientv3.OpPut(s.term, encodeRecord(physical.Record{Name: g.Record.Name, Term: g.Record.Term, Next: next}))).
		Commit()
	if err != nil {
		return failure(ctx, err, true)
	}
	s.revoke(ctx, lease)
	return nil
}

// revoke ends a lease without a lock: it is of no use, and else runs out by itself.
func (s *Store) revoke(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	_, _ = s.client.Revoke(ctx, lease)
}

// Holder returns the record of the lock.
func (s *Store) Holder(ctx context.Context) (physical.Record, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	defer end()
	now, err := s.readLock(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	if now.record.Holder == "" {
		return now.record, physical.ErrNoHolder
	}
	return now.record, nil
}

// Watch waits until the record of the lock differs from seen. It is etcd's own watch, on a server that has a leader.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	defer end()
	for {
		now, err := s.readLock(ctx)
		if err != nil {
			return physical.Record{}, err
		}
		if now.record != seen {
			return now.record, nil
		}
		if err := s.awaitChange(ctx, now.revision+1); err != nil {
			return physical.Record{}, err
		}
	}
}

// awaitChange returns when something about the lock has changed at or after a revision.
func (s *Store) awaitChange(ctx context.Context, revision int64) error {
	watching, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer stop()
	changes := s.client.Watch(watching, s.config.Path+"lock/", clientv3.WithPrefix(), clientv3.WithRev(revision))
	for resp := range changes {
		if resp.CompactRevision != 0 {
			return nil // what came since has been compacted: read anew
		}
		if err := resp.Err(); err != nil {
			return failure(ctx, err, false)
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	return failure(ctx, errors.New("the watch ended"), false)
}
