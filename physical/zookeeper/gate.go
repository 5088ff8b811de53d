package zookeeper

import "context"

// gate lets many in at a time, or one alone: a read-write lock whose waits end with a context.
type gate struct {
	alone chan struct{} // holds a token while somebody is alone, or waits to be
	room  chan struct{} // holds a token for each who is in
}

// gateRoom is how many commits are under way at a time.
const gateRoom = 128

func newGate() gate { return gate{make(chan struct{}, 1), make(chan struct{}, gateRoom)} }

// enter returns how to leave.
func (g gate) enter(ctx context.Context) (leave func(), err error) {
	if err := put(ctx, g.alone); err != nil {
		return nil, err
	}
	err = put(ctx, g.room)
	<-g.alone
	if err != nil {
		return nil, err
	}
	return func() { <-g.room }, nil
}

// enterAlone waits until everybody has left, and keeps everybody out.
func (g gate) enterAlone(ctx context.Context) (leave func(), err error) {
	if err := put(ctx, g.alone); err != nil {
		return nil, err
	}
	for n := range gateRoom {
		if err := put(ctx, g.room); err != nil {
			for range n {
				<-g.room
			}
			<-g.alone
			return nil, err
		}
	}
	return func() {
		for range gateRoom {
			<-g.room
		}
		<-g.alone
	}, nil
}

func put(ctx context.Context, into chan struct{}) error {
	select {
	case into <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
