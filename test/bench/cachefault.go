package main

import (
	"context"
	"fmt"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// transfer measures what an entry costs, and how long a node that comes back takes to have a million of them.
func (c *cachePeers) transfer(ctx context.Context, o options, s *Section) error {
	entries := 1_000_000
	if o.quick {
		entries = 50_000
	}
	order, err := leaderOf(ctx, c.plain)
	if err != nil {
		return err
	}
	leader, lost := order[0], order[2]
	if err := fillGauged(ctx, o, s, leader, entries); err != nil {
		return err
	}
	var took Rounds[time.Duration]
	var meanwhile Rounds[float64]
	for range o.rounds(3) {
		lost.Kill()
		writing := make(chan error, 1)
		arrived := make(chan struct{})
		go func() { // until it has arrived, however long that takes
			var err error
			for err == nil {
				var m gauged
				if m, err = leader.ask(ctx, "/put?inflight=16&for=250ms"); err == nil {
					meanwhile = append(meanwhile, m.Rate)
				}
				select {
				case <-arrived:
					writing <- err
					return
				default:
				}
			}
			writing <- err
		}()
		start := time.Now()
		if err := lost.start(); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		err := cluster.Poll(limit, "the node has all entries", func() error {
			m, err := lost.ask(limit, "/leads")
			if err == nil && (!m.Good || m.Count < int64(entries)) {
				err = fmt.Errorf("%d entries", m.Count)
			}
			return err
		})
		cancel()
		took = append(took, time.Since(start))
		close(arrived)
		if werr := <-writing; err == nil {
			err = werr
		}
		if err != nil {
			return fmt.Errorf("transfer of the state: %w", err)
		}
	}
	s.Targets = append(s.Targets, Target{fmt.Sprintf("a node that starts has %d entries, while 16 callers write", entries), "≤ 10 s", Show(took, millis), took.Median() <= 10*time.Second})
	s.Notes = append(s.Notes, fmt.Sprintf("While a node received %d entries, 16 callers on the leader wrote all the while: %s writes per second.", entries, Show(meanwhile, whole)))
	return nil
}

// fillGauged puts so many entries in, and gauges what each costs: with what is kept of the log of the last seconds, and when that is gone.
func fillGauged(ctx context.Context, o options, s *Section, leader *peer, entries int) error {
	if err := calmDown(ctx); err != nil { // else what goes of the log meanwhile would make the entries look smaller
		return err
	}
	before, err := leader.ask(ctx, "/memory")
	if err != nil {
		return err
	}
	if _, err := leader.ask(ctx, fmt.Sprintf("/fill?entries=%d", entries)); err != nil {
		return fmt.Errorf("filling: %w", err)
	}
	pair := float64(len("fill:00000000001") + 100)
	each := func() (float64, error) {
		after, err := leader.ask(ctx, "/memory")
		return float64(after.Heap-before.Heap)/float64(after.Count-before.Count) - pair, err
	}
	written, err := each()
	if err == nil {
		err = calmDown(ctx)
	}
	if err != nil {
		return err
	}
	resting, err := each()
	if err != nil {
		return err
	}
	s.Targets = append(s.Targets, Target{fmt.Sprintf("memory per entry of %d, beyond key and value", entries), "≤ 200 bytes", fmt.Sprintf("%.0f bytes", resting), resting <= 200})
	at := "memory per entry right after they were all written, with what is kept of the log of the last seconds"
	if o.quick { // all was written in the last seconds
		s.Notes = append(s.Notes, fmt.Sprintf("Of %d entries, %s: %.0f bytes.", entries, at, written))
	} else {
		s.Targets = append(s.Targets, Target{at, "≤ 200 bytes", fmt.Sprintf("%.0f bytes", written), written <= 200})
	}
	return nil
}

// calmDown waits until the log is cut: what is kept of it is what was written in the last two to four seconds.
func calmDown(ctx context.Context) error {
	timer := time.NewTimer(6 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// killLeader measures from kill -9 to the next write that a follower's client gets acknowledged, and counts what is lost: when all nodes are
// good again, by consistent reads on each of them, the one that was killed included.
func (c *cachePeers) killLeader(ctx context.Context, o options, s *Section) error {
	var took Rounds[time.Duration]
	lost := 0
	for round := range o.rounds(7) {
		order, err := leaderOf(ctx, c.plain)
		if err != nil {
			return err
		}
		leader, follower := order[0], order[1]
		client, err := dialRESP(follower.resp)
		if err != nil {
			return err
		}
		acknowledged := 0
		for ; acknowledged < 500; acknowledged++ {
			if answer, err := client.do("SET", fmt.Sprintf("kill:%d", acknowledged), fmt.Sprint(round)); err != nil || answer != "+OK" {
				return fmt.Errorf("before the kill: %s %w", answer, err)
			}
		}
		start := time.Now()
		leader.Kill()
		limit, cancel := context.WithTimeout(ctx, 30*time.Second)
		err = cluster.Poll(limit, "writes flow again", func() error {
			answer, err := client.do("SET", "kill:next", "v")
			if err == nil && answer != "+OK" {
				err = fmt.Errorf("%s", answer)
			}
			return err
		})
		cancel()
		took = append(took, time.Since(start))
		client.close()
		if err == nil {
			err = leader.start()
		}
		if err == nil {
			_, err = leaderOf(ctx, c.plain)
		}
		for i := 0; err == nil && i < len(c.plain); i++ {
			var m gauged
			m, err = c.plain[i].ask(ctx, fmt.Sprintf("/missing?keys=%d&value=%d", acknowledged, round))
			lost += int(m.Count)
		}
		if err != nil {
			return fmt.Errorf("kill of the leader: %w", err)
		}
	}
	s.Targets = append(s.Targets,
		Target{"leader killed with -9, until a follower's client has a write acknowledged", "≤ 1 s", Show(took, millis), took.Median() <= time.Second},
		Target{"writes acknowledged at quorum that were lost by these kills", "0", fmt.Sprint(lost), lost == 0})
	return nil
}
