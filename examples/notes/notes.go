package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/locum-ha/locum"
)

// notes keeps its notes in entries, by their numbers. Its methods run on the active node.
type notes struct {
	entries *locum.Entries
	table   locum.Table[string]
	last    locum.Table[uint64]

	mu    sync.Mutex // numbers are given one after the other
	added chan struct{}
}

func newNotes(node *locum.Node) *notes {
	e := node.Entries()
	return &notes{entries: e, table: locum.TableOf[string](e, "notes"), last: locum.TableOf[uint64](e, "last"), added: make(chan struct{})}
}

func nameOf(n uint64) string { return fmt.Sprintf("%020d", n) }

// Add stores a note and returns its number.
func (s *notes) Add(ctx context.Context, in *text) (*number, error) {
	n, err := s.add(ctx, in.GetValue())
	if err != nil {
		return nil, failure(err)
	}
	return wrapperspb.UInt64(n), nil
}

func (s *notes) add(ctx context.Context, note string) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, version, err := s.last.Get(ctx, "number")
	if err != nil && !errors.Is(err, locum.ErrNotFound) {
		return 0, err
	}
	put, err := s.table.Change(nameOf(last+1), note)
	if err != nil {
		return 0, err
	}
	if _, err := s.last.Put(ctx, "number", last+1, s.last.If("number", version), put); err != nil {
		return 0, err
	}
	close(s.added)
	s.added = make(chan struct{})
	return last + 1, nil
}

// AddMany stores what the client streams.
func (s *notes) AddMany(stream grpc.ClientStreamingServer[text, number]) error {
	var n uint64
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(wrapperspb.UInt64(n))
		}
		if err != nil {
			return err
		}
		if n, err = s.add(stream.Context(), in.GetValue()); err != nil {
			return failure(err)
		}
	}
}

// Watch streams the notes above a number, those that are there and those that come. A client whose stream ends comes again with the
// number that it had got to.
func (s *notes) Watch(from *number, stream grpc.ServerStreamingServer[text]) error {
	ctx, after := stream.Context(), ""
	if from.GetValue() > 0 {
		after = nameOf(from.GetValue())
	}
	for {
		s.mu.Lock()
		added := s.added
		s.mu.Unlock()
		names, err := s.table.List(ctx, after, 100)
		if err != nil {
			return failure(err)
		}
		for _, name := range names {
			note, _, err := s.table.Get(ctx, name)
			if err != nil {
				return failure(err)
			}
			if err := stream.Send(wrapperspb.String(note)); err != nil {
				return err
			}
			after = name
		}
		if len(names) > 0 {
			continue
		}
		select {
		case <-added:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// Echo returns what it is sent, as it comes.
func (s *notes) Echo(stream grpc.BidiStreamingServer[text, text]) error {
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = stream.Send(in)
		}
		if err != nil {
			return err
		}
	}
}

// failure is an error in gRPC's words: Unavailable is what clients try again.
func failure(err error) error {
	if errors.Is(err, locum.ErrNotActive) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
