package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/locum-ha/locum/examples/internal/trio"
)

func TestMain(m *testing.M) { trio.Main(m, main) }

func dial(t *testing.T, p *trio.Process) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.Listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// add is a client's call, which tries again what may be tried again. A call whose outcome is unknown may have been carried out: the
// client looks before it repeats, and here the notes are told apart by their text.
func add(ctx context.Context, conn *grpc.ClientConn, note string) error {
	for {
		err := conn.Invoke(ctx, "/"+serviceName+"/Add", wrapperspb.String(note), new(number))
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause := time.NewTimer(20 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

func stream[Req, Res any](t *testing.T, ctx context.Context, conn *grpc.ClientConn, i int) *grpc.GenericClientStream[Req, Res] {
	t.Helper()
	desc := &serviceDesc.Streams[i]
	s, err := conn.NewStream(ctx, desc, "/"+serviceName+"/"+desc.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	return &grpc.GenericClientStream[Req, Res]{ClientStream: s}
}

// "gRPC streaming through a standby": all four kinds of call, both ways at once.
func TestThroughAStandby(t *testing.T) {
	nodes := trio.Start(t)
	conn := dial(t, trio.Standby(t, nodes))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := add(ctx, conn, "one"); err != nil {
		t.Fatal(err)
	}
	many := stream[text, number](t, ctx, conn, 0)
	for _, note := range []string{"two", "three"} {
		if err := many.Send(wrapperspb.String(note)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := many.CloseAndRecv(); err != nil || n.GetValue() != 3 {
		t.Fatalf("AddMany: %v, %v", n, err)
	}
	echo := stream[text, text](t, ctx, conn, 2)
	for i := range 100 {
		if err := echo.Send(wrapperspb.String(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if back, err := echo.Recv(); err != nil || back.GetValue() != fmt.Sprint(i) { // each answered before the next is sent
			t.Fatalf("Echo %d: %v, %v", i, back, err)
		}
	}
	if err := echo.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := echo.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("Echo's end: %v", err)
	}
	watch := stream[number, text](t, ctx, conn, 1)
	if err := errors.Join(watch.Send(wrapperspb.UInt64(1)), watch.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"two", "three"} {
		if got, err := watch.Recv(); err != nil || got.GetValue() != want {
			t.Fatalf("Watch: %v, %v", got, err)
		}
	}
}

// The active node is killed under a watch and under calls: the watch ends with a code that says to come again, and from where it
// was goes on with no note missing; every call that was answered is there.
func TestActiveNodeIsKilled(t *testing.T) {
	nodes := trio.Start(t)
	first := trio.Active(t, nodes)
	conn := dial(t, trio.Standby(t, nodes))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const calls = 60
	added := make(chan error, 1)
	go func() {
		for i := range calls {
			if err := add(ctx, conn, fmt.Sprint("note ", i)); err != nil {
				added <- err
				return
			}
			if i == calls/3 {
				first.Kill()
			}
		}
		added <- nil
	}()
	var got []string
	broken := 0
	for !slices.Contains(got, fmt.Sprint("note ", calls-1)) {
		watch := stream[number, text](t, ctx, conn, 1)
		if err := errors.Join(watch.Send(wrapperspb.UInt64(uint64(len(got)))), watch.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		for !slices.Contains(got, fmt.Sprint("note ", calls-1)) {
			note, err := watch.Recv()
			if err != nil {
				if code := status.Code(err); code != codes.Unavailable {
					t.Errorf("the watch ended with %s: %v", code, err)
				}
				broken++
				break
			}
			got = append(got, note.GetValue())
		}
		if ctx.Err() != nil {
			t.Fatalf("%d notes: %v", len(got), ctx.Err())
		}
	}
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	for i := range calls {
		if !slices.Contains(got, fmt.Sprint("note ", i)) {
			t.Errorf("note %d was acknowledged and is missing", i)
		}
	}
	if broken == 0 || len(got) > calls+2 {
		t.Errorf("%d streams broken, %d notes of %d", broken, len(got), calls)
	}
}
