package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/join"
)

// joinTarget is a node of the cluster that is to be joined.
type joinTarget struct {
	apiAddr string
	client  *http.Client
}

const (
	joinPathChallenge = "/v1/sys/storage/raft/bootstrap/challenge"
	joinPathAnswer    = "/v1/sys/storage/raft/bootstrap/answer"
	joinTimeout       = 10 * time.Second // for one round of the talk
	joinRetryMin      = 250 * time.Millisecond
	joinRetryMax      = 5 * time.Second
	joinAnswerMax     = 1 << 20 // bytes
)

// errNeedsShares: the cluster was found; the operator's shares are needed to join it.
var errNeedsShares = errors.New("the cluster's root key is in shares: unseal this node with them, and it joins")

// errInterrupted: an operator's request took the turn.
var errInterrupted = errors.New("interrupted by a request")

// Join lets this node join the cluster that another node is in.
func (s *Server) Join(ctx context.Context, req api.JoinRequest) error {
	if s.raft == nil {
		return api.Errorf(http.StatusBadRequest, "only a node with storage \"raft\" joins: with another data store the nodes find each other in it")
	}
	target, err := newJoinTarget(req)
	if err != nil {
		return err
	}
	if req.NonVoter {
		return api.Errorf(http.StatusBadRequest, "non_voter is not supported: leave it out; a node that shall never be active says ha { candidate = false }")
	}
	s.interrupt()
	if err := s.ops.LockContext(ctx); err != nil {
		return err
	}
	defer s.ops.Unlock()
	if s.sealing.Load().initialized {
		return api.Errorf(http.StatusBadRequest, "this node is in a cluster already: to put it into another one, stop it and remove its data directory")
	}
	if req.Retry {
		s.startJoining([]joinTarget{target})
		return nil
	}
	err = s.joinOnce(ctx, target)
	if errors.Is(err, errNeedsShares) {
		return nil
	}
	return err
}

// startJoining tries the targets in turn, in the background, until the cluster has taken this node in. The caller holds ops.
func (s *Server) startJoining(targets []joinTarget) {
	s.stopJoining()
	ctx, cancel := context.WithCancel(s.lifetime)
	s.cancelJoin.Store(&cancel)
	if s.stopping.Load() {
		cancel()
	}
	s.wg.Go(func() { s.keepJoining(ctx, targets) })
}

// stopJoining ends the attempts, the one under way too. It needs no turn: an attempt has it.
func (s *Server) stopJoining() {
	if cancel := s.cancelJoin.Swap(nil); cancel != nil {
		(*cancel)()
	}
}

// interrupt ends the attempt under way, for an operator's request that wants the turn now. The next attempt comes after that
// request, and finds nothing left to do unless the request has failed.
func (s *Server) interrupt() {
	if cancel := s.attempt.Load(); cancel != nil {
		(*cancel)()
	}
}

// begun takes the turn for an attempt in the background, under a context that interrupt ends too.
func (s *Server) begun(ctx context.Context) (_ context.Context, done func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	s.attempt.Store(&cancel)
	if err := s.ops.LockContext(ctx); err != nil {
		cancel()
		return ctx, nil, err
	}
	return ctx, func() { s.ops.Unlock(); cancel() }, nil
}

func (s *Server) keepJoining(ctx context.Context, targets []joinTarget) {
	pause, told := joinRetryMin, ""
	for i := 0; ctx.Err() == nil; i++ {
		target := targets[i%len(targets)]
		err := s.tryJoin(ctx, target)
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case errors.Is(err, errNeedsShares):
			s.log.Info("cluster found", "at", target.apiAddr, "next", err.Error())
			return
		case errors.Is(err, errInterrupted):
			if !pauseFor(ctx, joinRetryMin) {
				return
			}
			continue
		}
		if line := target.apiAddr + err.Error(); line != told {
			s.log.Warn("not joined yet", "at", target.apiAddr, "error", err)
			told = line
		}
		if i%len(targets) == len(targets)-1 {
			if !pauseFor(ctx, pause) {
				return
			}
			pause = min(2*pause, joinRetryMax)
		}
	}
}

func (s *Server) tryJoin(ctx context.Context, target joinTarget) error {
	attempt, done, err := s.begun(ctx)
	if err == nil {
		defer done()
		if ctx.Err() != nil || s.sealing.Load().initialized {
			return nil
		}
		err = s.joinOnce(attempt, target)
	}
	if err != nil && attempt.Err() != nil {
		return errInterrupted
	}
	return err
}

// joinOnce asks for a challenge and answers it with the static key; where there are shares it remembers where to join,
// and errNeedsShares. The caller holds ops.
func (s *Server) joinOnce(ctx context.Context, target joinTarget) error {
	_, challenge, err := s.challenge(ctx, target)
	if err != nil {
		return err
	}
	st, err := newSealing(challenge.SealConfig, challenge.RootKey)
	if err != nil {
		return err
	}
	st.join = &target
	if st.collector != nil {
		s.sealing.Store(st)
		return errNeedsShares
	}
	if s.static == nil {
		return errors.New("the cluster has a static seal and this node has none: give it the same seal \"static\" block")
	}
	return s.openWith(ctx, st, s.static)
}

// joinWith proves the root key, starts raft with the cluster's authority, and waits for the entries to arrive. The caller
// holds ops.
func (s *Server) joinWith(ctx context.Context, target joinTarget, rootKey []byte) error {
	key, err := barrier.Derive(rootKey, join.Purpose)
	if err != nil {
		return err
	}
	payload, err := s.talk(ctx, target, key)
	if err != nil {
		return err
	}
	ring, err := cluster.ParseRing(payload)
	if err != nil {
		return err
	}
	if !s.raftRuns {
		if err := s.startRaft(ring); err != nil {
			return fmt.Errorf("start raft: %w", err)
		}
	}
	if err := s.awaitEntries(ctx); err != nil {
		return err
	}
	st, err := s.readSeal(ctx)
	if err != nil {
		return err
	}
	s.sealing.Store(st)
	s.log.Info("joined", "through", target.apiAddr)
	return s.open(ctx, rootKey)
}

// talk has both rounds with the cluster and returns what the welcome carries.
func (s *Server) talk(ctx context.Context, target joinTarget, key []byte) ([]byte, error) {
	request, challenge, err := s.challenge(ctx, target)
	if err != nil {
		return nil, err
	}
	answer, err := join.NewAnswer(key, request, challenge)
	if err != nil {
		return nil, err
	}
	var welcome join.Welcome
	if err := target.post(ctx, joinPathAnswer, answer, &welcome); err != nil {
		return nil, err
	}
	return answer.Open(key, welcome)
}

func (s *Server) challenge(ctx context.Context, target joinTarget) (join.Request, join.Challenge, error) {
	var challenge join.Challenge
	request := join.NewRequest(s.id, s.cfg.NodeName, s.clusterHostPort)
	err := target.post(ctx, joinPathChallenge, request, &challenge)
	return request, challenge, err
}

// awaitEntries waits until raft has brought this node the keyring.
func (s *Server) awaitEntries(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settle, fmt.Errorf(
		"the cluster took this node in, but its entries did not arrive within %s: can the active node reach this one at %s?", settle, s.clusterHostPort))
	defer cancel()
	for {
		ok, err := s.barrier.Initialized(ctx)
		if err == nil && ok {
			if _, err = s.barrier.GetPlain(ctx, barrier.KeySealConfig); err == nil {
				return nil
			}
		}
		if !pauseFor(ctx, 10*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}

// adoptAddress tells the cluster, in the background, where this node is reached now, if that has changed.
func (s *Server) adoptAddress(u *unsealed) {
	if s.raft == nil {
		return
	}
	configured := s.raft.Stats().Address
	if configured == "" || configured == s.clusterHostPort {
		return
	}
	s.log.Info("cluster address changed: telling the others", "from", configured, "to", s.clusterHostPort)
	s.wg.Go(func() {
		for pause := joinRetryMin; s.lifetime.Err() == nil && s.life.Load() == u; pause = min(2*pause, joinRetryMax) {
			err := s.announce(s.lifetime)
			if err == nil {
				s.log.Info("cluster address adopted", "address", s.clusterHostPort)
				return
			}
			s.log.Warn("cluster address not adopted yet", "error", err)
			if !pauseFor(s.lifetime, pause) {
				return
			}
		}
	})
}

// announce joins again under the same identity, which changes the address.
func (s *Server) announce(ctx context.Context) error {
	if u := s.life.Load(); u != nil && u.leading.Load() != nil {
		return s.raft.AddPeer(ctx, s.id, s.clusterHostPort)
	}
	key, err := s.barrier.DeriveKey(join.Purpose)
	if err != nil {
		return err
	}
	targets := slices.Clone(s.targets)
	if u := s.life.Load(); u != nil {
		if ad := u.leader.Load(); ad != nil {
			targets = append(targets, joinTarget{apiAddr: ad.APIAddr, client: http.DefaultClient})
		}
	}
	err = errors.New("no node is known to tell: name one in retry_join")
	for _, target := range targets {
		if _, err = s.talk(ctx, target, key); err == nil {
			return nil
		}
	}
	return err
}

// post sends a round of the talk.
func (t joinTarget) post(ctx context.Context, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.apiAddr, "/")+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, joinAnswerMax))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		var said struct {
			Errors []string `json:"errors"`
		}
		err := fmt.Errorf("%s answers %s", t.apiAddr, resp.Status)
		if json.Unmarshal(data, &said) == nil && len(said.Errors) > 0 {
			err = fmt.Errorf("%s says: %s", t.apiAddr, strings.Join(said.Errors, "; "))
		}
		if resp.StatusCode == http.StatusForbidden {
			return forbidden{err}
		}
		return err
	}
	return json.Unmarshal(data, answer)
}

// forbidden is a 403: the other side knows what was shown to it, and says no.
type forbidden struct{ error }

// pauseFor waits and reports whether ctx is still good.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// configuredTargets are the nodes in retry_join, without this one.
func configuredTargets(cfg *config.Config) ([]joinTarget, error) {
	var targets []joinTarget
	for _, c := range cfg.Storage.Raft.RetryJoin {
		if strings.TrimSuffix(c.LeaderAPIAddr, "/") == strings.TrimSuffix(cfg.APIAddr, "/") {
			continue
		}
		req := api.JoinRequest{LeaderAPIAddr: c.LeaderAPIAddr, CACert: c.LeaderCACert, ServerName: c.LeaderTLSServerName}
		for _, f := range []struct {
			path string
			into *string
		}{{c.LeaderCACertFile, &req.CACert}, {c.LeaderClientCertFile, &req.ClientCert}, {c.LeaderClientKeyFile, &req.ClientKey}} {
			if f.path == "" {
				continue
			}
			data, err := os.ReadFile(f.path)
			if err != nil {
				return nil, fmt.Errorf("retry_join %s: %w", c.LeaderAPIAddr, err)
			}
			*f.into = string(data)
		}
		target, err := newJoinTarget(req)
		if err != nil {
			return nil, fmt.Errorf("retry_join %s: %w", c.LeaderAPIAddr, err)
		}
		targets = append(targets, target)
	}
	return targets, nil
}

// newJoinTarget makes a client for the node that is to be asked. It follows redirects with the request as it was.
func newJoinTarget(req api.JoinRequest) (joinTarget, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: req.ServerName}
	if req.CACert != "" {
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM([]byte(req.CACert)) {
			return joinTarget{}, api.Errorf(http.StatusBadRequest, "the CA certificate to verify %s with is not PEM", req.LeaderAPIAddr)
		}
	}
	if req.ClientCert != "" {
		cert, err := tls.X509KeyPair([]byte(req.ClientCert), []byte(req.ClientKey))
		if err != nil {
			return joinTarget{}, api.Errorf(http.StatusBadRequest, "the client certificate for %s: %v", req.LeaderAPIAddr, err)
		}
		tlsConfig.Certificates = []tls.Certificate{cert}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.DisableKeepAlives, transport.Proxy = tlsConfig, true, nil
	return joinTarget{apiAddr: req.LeaderAPIAddr, client: &http.Client{Transport: transport}}, nil
}
