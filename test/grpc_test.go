package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// text is the message of every call.
type text = wrapperspb.StringValue

// echoService has one method of each kind, described by hand: no generated code is needed for that.
var echoService = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(text)
		if err := decode(in); err != nil {
			return nil, err
		}
		if in.Value == "fail" {
			return nil, status.Error(codes.FailedPrecondition, "as asked: ünïcode")
		}
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
		return wrapperspb.String(in.Value + "!"), nil
	}}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Server", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			in := new(text)
			if err := s.RecvMsg(in); err != nil {
				return err
			}
			for i := range 5 {
				if err := s.SendMsg(wrapperspb.String(fmt.Sprint(in.Value, i))); err != nil {
					return err
				}
			}
			return nil
		}},
		{StreamName: "Client", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			var all []string
			for {
				in := new(text)
				err := s.RecvMsg(in)
				if errors.Is(err, io.EOF) {
					return s.SendMsg(wrapperspb.String(strings.Join(all, ",")))
				}
				if err != nil {
					return err
				}
				all = append(all, in.Value)
			}
		}},
		{StreamName: "Both", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				in := new(text)
				if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(wrapperspb.String(in.Value + "!")); err != nil {
					return err
				}
			}
		}},
	},
}

// Design, "Forwarding": gRPC with all four kinds of call passes through a standby, with status, metadata, trailers and
// deadlines.
func TestGRPCThroughStandby(t *testing.T) {
	server := grpc.NewServer()
	server.RegisterService(&echoService, nil)
	standby, active := startFront(t, http.HandlerFunc(server.ServeHTTP))
	for name, address := range map[string]string{"through the standby": standby, "at the active node": active} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			t.Run("unary", func(t *testing.T) { grpcUnary(ctx, t, conn) })
			t.Run("server streams", func(t *testing.T) { grpcServerStreams(ctx, t, conn) })
			t.Run("client streams", func(t *testing.T) { grpcClientStreams(ctx, t, conn) })
			t.Run("both stream", func(t *testing.T) { grpcBothStream(ctx, t, conn) })
		})
	}
}

func grpcUnary(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	out := new(text)
	var trailer metadata.MD
	if err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("hello"), out, grpc.Trailer(&trailer)); err != nil || out.Value != "hello!" {
		t.Fatalf("%q %v", out.Value, err)
	}
	if got := trailer.Get("x-trailer"); len(got) != 1 || got[0] != "t" {
		t.Errorf("trailers %v", trailer)
	}
	err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("fail"), out)
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "as asked: ünïcode" {
		t.Errorf("%v", err)
	}
}

func grpcServerStreams(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	s, err := conn.NewStream(ctx, &echoService.Streams[0], "/test.Echo/Server")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(wrapperspb.String("n")), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		out := new(text)
		if err := s.RecvMsg(out); err != nil || out.Value != fmt.Sprint("n", i) {
			t.Fatalf("%q %v", out.Value, err)
		}
	}
	if err := s.RecvMsg(new(text)); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func grpcClientStreams(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	s, err := conn.NewStream(ctx, &echoService.Streams[1], "/test.Echo/Client")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"a", "b", "c"} {
		if err := s.SendMsg(wrapperspb.String(v)); err != nil {
			t.Fatal(err)
		}
	}
	out := new(text)
	if err := errors.Join(s.CloseSend(), s.RecvMsg(out)); err != nil || out.Value != "a,b,c" {
		t.Fatalf("%q %v", out.Value, err)
	}
}

// grpcBothStream takes turns: each side waits for the other, so nothing may be held back on the way.
func grpcBothStream(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	s, err := conn.NewStream(ctx, &echoService.Streams[2], "/test.Echo/Both")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		value := strings.Repeat(fmt.Sprint(i), 1+i*500)
		out := new(text)
		if err := errors.Join(s.SendMsg(wrapperspb.String(value)), s.RecvMsg(out)); err != nil || out.Value != value+"!" {
			t.Fatalf("%.40q %v", out.Value, err)
		}
	}
	if err := errors.Join(s.CloseSend(), ignoreEOF(s.RecvMsg(new(text)))); err != nil {
		t.Errorf("at the end: %v", err)
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
