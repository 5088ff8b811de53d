package migrate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// engine is a store that runs in the nodes themselves: before it takes commits, it must be a cluster of one.
type engine interface {
	Initialized() bool
	Bootstrap() error
	Start(physical.Layer) error
	Stop() error
	IsLeader() bool
}

// electionLimit bounds the wait for a cluster of one to elect its only node.
const electionLimit = 30 * time.Second

// Alone makes a destination that runs in the nodes themselves take commits, as a cluster of this one node, until stop. Other
// destinations need nothing.
func Alone(ctx context.Context, destination physical.Backend) (stop func() error, err error) {
	e, ok := destination.(engine)
	if !ok {
		return func() error { return nil }, nil
	}
	if !e.Initialized() {
		if err := e.Bootstrap(); err != nil {
			return nil, err
		}
	}
	layer := &nowhere{done: make(chan struct{})}
	if err := e.Start(layer); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, electionLimit, fmt.Errorf("it does not lead itself after %s: is it the data of a cluster of several nodes?", electionLimit))
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !e.IsLeader() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), e.Stop())
		}
	}
	return e.Stop, nil
}

// nowhere is the network of a node that has no others.
type nowhere struct {
	done chan struct{}
	once sync.Once
}

// Dial reaches nobody.
func (n *nowhere) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("there is no other node")
}

// Accept waits until Close.
func (n *nowhere) Accept() (net.Conn, error) {
	<-n.done
	return nil, net.ErrClosed
}

// Close ends Accept.
func (n *nowhere) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

// Addr is none.
func (n *nowhere) Addr() net.Addr { return &net.TCPAddr{} }
