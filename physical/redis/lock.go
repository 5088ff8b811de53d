package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/locum-ha/locum/physical"
)

// Keys: 1 the lock (format, holder, name, term, token, ttl), which expires; 2 what outlives it (format, term, next). Terms are
// numbers of Lua, which are exact up to 2^53. Each script may be repeated: a cluster's client does so when a connection breaks.
var (
	acquireScript = client.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'holder', 'name', 'term', 'token', 'format')
local s = redis.call('HMGET', KEYS[2], 'term', 'format')
local format = math.max(tonumber(h[5] or '1'), tonumber(s[2] or '1'))
if format > 1 then return {'newer', tostring(format)} end
if h[4] == ARGV[3] then return {'won', h[3]} end
if h[1] then return {'held', h[1], h[2], h[3]} end
local term = tonumber(s[1] or '0')
local above = tonumber(ARGV[5])
if above > term then term = above end
local text = string.format('%.0f', term + 1)
redis.call('HSET', KEYS[2], 'format', '1', 'term', text, 'next', '')
redis.call('HSET', KEYS[1], 'format', '1', 'holder', ARGV[1], 'name', ARGV[2], 'term', text, 'token', ARGV[3], 'ttl', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[6], text)
return {'won', text}`)

	renewScript = client.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'token', 'term', 'ttl')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
redis.call('PEXPIRE', KEYS[1], h[3])
return tonumber(h[3])`)

	releaseScript = client.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'token', 'term')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], 'next', ARGV[3])
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[4], h[2])
return 1`)

	lookScript = client.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'holder', 'name', 'term', 'format')
local s = redis.call('HMGET', KEYS[2], 'term', 'next', 'format')
local format = math.max(tonumber(h[4] or '1'), tonumber(s[3] or '1'))
if h[1] then return {h[1], h[2], h[3], '', redis.call('PTTL', KEYS[1]), format} end
return {'', '', s[1] or '0', s[2] or '', 0, format}`)
)

// mostTerm is the greatest number that Lua counts up exactly.
const mostTerm = 1<<53 - 2

// errReplicas: a write is on too few replicas.
var errReplicas = errors.New("too few replicas have it")

// dialling reports whether err is one of making a connection.
func dialling(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// script runs a script, and has its writes waited for where replicas are asked for.
func (s *Store) script(ctx context.Context, sc *client.Script, wait bool, args ...any) (*client.Cmd, error) {
	if s.cfg.WaitReplicas == 0 || !wait {
		cmd := sc.Run(ctx, s.client, s.keys, args...)
		return cmd, cmd.Err()
	}
	node, err := s.master(ctx)
	if err != nil {
		return nil, err
	}
	conn := node.Conn() // WAIT counts the replicas that have what was written on the same connection
	defer conn.Close()
	cmd := sc.Run(ctx, conn, s.keys, args...)
	if cmd.Err() != nil {
		if c, ok := s.client.(*client.ClusterClient); ok {
			c.ReloadState(ctx) // the lock may have moved to another node
		}
		return cmd, cmd.Err()
	}
	have, err := conn.Wait(ctx, s.cfg.WaitReplicas, s.cfg.WaitTimeout).Result()
	if err == nil && have < int64(s.cfg.WaitReplicas) {
		err = fmt.Errorf("%w: %d of %d", errReplicas, have, s.cfg.WaitReplicas)
	}
	return cmd, err
}

// master returns the client of the server that keeps the lock.
func (s *Store) master(ctx context.Context) (*client.Client, error) {
	switch c := s.client.(type) {
	case *client.Client:
		return c, nil
	case *client.ClusterClient:
		return c.MasterForKey(ctx, s.keys[0])
	}
	return nil, fmt.Errorf("a client of type %T has no master", s.client)
}

// Acquire makes one attempt to take the lock.
func (s *Store) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	if r.Holder == "" || ttl < time.Millisecond || above > mostTerm {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v above term %d", physical.ErrInvalid, r.Holder, ttl, above)
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	var answer []string
	err := s.run(ctx, true, func(ctx context.Context) error {
		cmd, err := s.script(ctx, acquireScript, true, r.Holder, r.Name, hex.EncodeToString(token), ttl.Milliseconds(), above, s.channel)
		if err != nil {
			return err
		}
		answer, err = cmd.StringSlice()
		return err
	})
	if errors.Is(err, errReplicas) {
		if back := s.giveBack(ctx, token); back != nil {
			return physical.Grant{}, fmt.Errorf("%w: %w, and it could not be given back: %v", physical.ErrUnknown, errReplicas, back)
		}
	}
	if err != nil {
		return physical.Grant{}, err
	}
	if len(answer) == 4 && answer[0] == "held" {
		term, err := strconv.ParseUint(answer[3], 10, 64)
		if err != nil {
			return physical.Grant{}, notOurs(s.keys[0])
		}
		return physical.Grant{}, &physical.HeldError{Record: physical.Record{Holder: answer[1], Name: answer[2], Term: term}}
	}
	if len(answer) == 2 && answer[0] == "newer" {
		return physical.Grant{}, s.newer(answer[1])
	}
	if len(answer) != 2 {
		return physical.Grant{}, notOurs(s.keys[0])
	}
	term, err := strconv.ParseUint(answer[1], 10, 64)
	if err != nil {
		return physical.Grant{}, notOurs(s.keys[1])
	}
	return physical.Grant{
		Record: physical.Record{Holder: r.Holder, Name: r.Name, Term: term},
		TTL:    ttl.Truncate(time.Millisecond), Token: token,
	}, nil
}

// formatVersion is the format of the keys that this code knows.
const formatVersion = 1

// newer refuses what a later version of Locum has written.
func (s *Store) newer(format string) error {
	return fmt.Errorf("%w: %s has format %s, and this version of Locum knows %d: update this node", physical.ErrUnavailable, s.keys[0], format, formatVersion)
}

func notOurs(key string) error { return fmt.Errorf("redis: the key %s is not Locum's", key) }

// giveBack frees a lock that too few replicas have. If it cannot, the lock is held until it runs out.
func (s *Store) giveBack(ctx context.Context, token []byte) error {
	r, err := s.look(ctx)
	if err != nil {
		return err
	}
	return s.Release(ctx, physical.Grant{Record: r.record, Token: token}, "")
}

// Renew extends the grant by its TTL.
func (s *Store) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	var ms int64
	err := s.run(ctx, true, func(ctx context.Context) error {
		cmd, err := s.script(ctx, renewScript, true, hex.EncodeToString(g.Token), strconv.FormatUint(g.Term(), 10))
		if err != nil {
			return err
		}
		ms, err = cmd.Int64()
		return err
	})
	if err != nil {
		return physical.Grant{}, err
	}
	if ms == 0 {
		return physical.Grant{}, physical.ErrLost
	}
	g.TTL = time.Duration(ms) * time.Millisecond
	return g, nil
}

// Release gives the lock up.
func (s *Store) Release(ctx context.Context, g physical.Grant, next string) error {
	return s.run(ctx, true, func(ctx context.Context) error {
		_, err := s.script(ctx, releaseScript, false, hex.EncodeToString(g.Token), strconv.FormatUint(g.Term(), 10), next, s.channel)
		return err
	})
}

// state is the lock as the server has it.
type state struct {
	record physical.Record
	left   time.Duration
}

func (s *Store) look(ctx context.Context) (state, error) {
	var answer []any
	err := s.run(ctx, false, func(ctx context.Context) error {
		cmd, err := s.script(ctx, lookScript, false)
		if err != nil {
			return err
		}
		answer, err = cmd.Slice()
		return err
	})
	if err != nil {
		return state{}, err
	}
	var words [4]string
	var left, format int64
	ok := len(answer) == 6
	for i := 0; ok && i < 4; i++ {
		words[i], ok = answer[i].(string)
	}
	if ok {
		left, ok = answer[4].(int64)
	}
	if ok {
		format, ok = answer[5].(int64)
	}
	if ok && format > formatVersion {
		return state{}, s.newer(strconv.FormatInt(format, 10))
	}
	term, err := strconv.ParseUint(words[2], 10, 64)
	if !ok || err != nil {
		return state{}, notOurs(s.keys[0])
	}
	return state{
		record: physical.Record{Holder: words[0], Name: words[1], Term: term, Next: words[3]},
		left:   time.Duration(left) * time.Millisecond,
	}, nil
}

// Holder returns the record of the lock.
func (s *Store) Holder(ctx context.Context) (physical.Record, error) {
	now, err := s.look(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	if now.record.Holder == "" {
		return now.record, physical.ErrNoHolder
	}
	return now.record, nil
}
