package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// callPath is the one method of the gRPC application.
const callPath = "/bench.Echo/Unary"

// serveGRPC is the application: it answers with a kilobyte.
func serveGRPC(ctx context.Context, address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "bench.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Unary",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return wrapperspb.Bytes(kilobyte), nil
		}}}}, nil)
	defer context.AfterFunc(ctx, s.Stop)()
	return s.Serve(ln)
}

// calls is what saturateGRPC measured.
type calls struct {
	n        int
	rate     float64
	p50, p99 time.Duration
}

// saturateGRPC keeps so many callers busy for a time, each with a connection of its own and one call at a time.
func saturateGRPC(ctx context.Context, address string, callers int, length time.Duration) (calls, error) {
	errs, took := make([]error, callers), make([][]time.Duration, callers)
	var ready, all sync.WaitGroup
	begin := make(chan struct{})
	ready.Add(callers)
	for i := range callers {
		all.Go(func() {
			conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			call := func() error {
				limit, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				out := new(wrapperspb.BytesValue)
				err := conn.Invoke(limit, callPath, wrapperspb.Bytes([]byte("x")), out)
				if err == nil && len(out.Value) != len(kilobyte) {
					err = fmt.Errorf("%d bytes", len(out.Value))
				}
				return err
			}
			if err == nil {
				defer conn.Close()
				err = call()
			}
			errs[i] = err
			ready.Done()
			<-begin
			for end := time.Now().Add(length); errs[i] == nil && time.Now().Before(end); {
				start := time.Now()
				errs[i] = call()
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	ready.Wait()
	start := time.Now()
	close(begin)
	all.Wait()
	elapsed := time.Since(start)
	sorted := slices.Concat(took...)
	slices.Sort(sorted)
	if err := errors.Join(errs...); err != nil || len(sorted) == 0 {
		return calls{}, errors.Join(err, ctx.Err())
	}
	return calls{n: len(sorted), rate: float64(len(sorted)) / elapsed.Seconds(), p50: sorted[len(sorted)/2], p99: sorted[len(sorted)*99/100]}, nil
}
