package apps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/locum-ha/locum/test/cluster"
)

type message = wrapperspb.StringValue

// echoService has one method of each kind, described by hand: no generated code is needed for that. "Watch" says one thing, and
// then nothing until it is ended.
var echoService = grpc.ServiceDesc{
	ServiceName: "test.Echo", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(message)
		if err := decode(in); err != nil {
			return nil, err
		}
		if in.Value == "fail" {
			return nil, status.Error(codes.FailedPrecondition, "as asked: ünïcode")
		}
		if in.Value == "slow" {
			select {
			case <-time.After(500 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
		return wrapperspb.String(in.Value + "!"), nil
	}}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Server", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			in := new(message)
			if err := s.RecvMsg(in); err != nil {
				return err
			}
			for i := range 5 {
				if err := s.SendMsg(wrapperspb.String(fmt.Sprint(in.Value, i))); err != nil {
					return err
				}
			}
			if in.Value == "watch" {
				<-s.Context().Done()
			}
			return nil
		}},
		{StreamName: "Client", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			var all []string
			for {
				in := new(message)
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
				in := new(message)
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

func serveGRPC(t *testing.T) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	s.RegisterService(&echoService, nil)
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

func dialGRPC(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// stream opens a call and sends what is given.
func stream(t *testing.T, conn *grpc.ClientConn, ctx context.Context, name string, send ...string) grpc.ClientStream {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/"+name)
	for _, text := range send {
		if err == nil {
			err = s.SendMsg(wrapperspb.String(text))
		}
	}
	if err == nil && name == "Server" {
		err = s.CloseSend()
	}
	if err != nil {
		t.Fatal(name, err)
	}
	return s
}

func receive(s grpc.ClientStream) (string, error) {
	in := new(message)
	err := s.RecvMsg(in)
	return in.Value, err
}

// gRPC with all four kinds of call through every node, its statuses and trailers whole.
func TestGRPC(t *testing.T) {
	t.Parallel()
	addr := serveGRPC(t)
	ready := func(at string) error {
		conn, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("x"), new(message))
	}
	c := start(t, application("h2c://"+addr, ""), ready)
	ctx := within(t, 30*time.Second)
	for _, n := range c.Nodes {
		calls(t, ctx, dialGRPC(t, address(n)))
	}
	// A planned step-down: what ends is answered, what says nothing ends with a status.
	type result struct {
		node, what string
		err        error
	}
	results := make(chan result, 2*len(c.Nodes))
	for _, n := range c.Nodes {
		conn := dialGRPC(t, address(n))
		watch := stream(t, conn, ctx, "Server", "watch")
		for range 5 {
			if _, err := receive(watch); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			_, err := receive(watch)
			results <- result{n.Name, "watch", err}
		}()
		go func() {
			results <- result{n.Name, "slow", conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("slow"), new(message))}
		}()
	}
	settle(t, 100*time.Millisecond)
	begun := time.Now()
	if err := c.StepDown(ctx, c.Nodes[0], "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the step-down took %v: it waited for what has no end", took)
	}
	for range cap(results) {
		r := <-results
		if code := status.Code(r.err); r.what == "slow" && code != codes.OK || r.what == "watch" && code != codes.Unavailable {
			t.Errorf("%s at %s: %v", r.what, r.node, r.err)
		}
	}
	crashed(t, ctx, c)
}

// crashed: a stream through a standby ends with a status when the active node is killed.
func crashed(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	t.Helper()
	active := findActive(t, c)
	standby := c.Nodes[0]
	if standby == active {
		standby = c.Nodes[1]
	}
	conn := dialGRPC(t, address(standby))
	watch := stream(t, conn, ctx, "Server", "watch")
	if _, err := receive(watch); err != nil {
		t.Fatal(err)
	}
	active.Kill()
	for {
		if _, err := receive(watch); err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("after a crash: %v", err)
			}
			break
		}
	}
	if err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("x"), new(message)); err != nil {
		t.Errorf("the next call: %v", err) // held until the next node serves
	}
}

func calls(t *testing.T, ctx context.Context, conn *grpc.ClientConn) {
	t.Helper()
	out, trailer := new(message), metadata.MD{}
	if err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("a"), out, grpc.Trailer(&trailer)); err != nil || out.Value != "a!" || len(trailer["x-trailer"]) != 1 {
		t.Errorf("unary: %q, %v, %v", out.Value, err, trailer)
	}
	err := conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("fail"), out)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "ünïcode") {
		t.Errorf("a status: %v", err)
	}
	s := stream(t, conn, ctx, "Server", "n")
	for i := range 5 {
		if got, err := receive(s); got != fmt.Sprint("n", i) || err != nil {
			t.Errorf("server stream: %q, %v", got, err)
		}
	}
	if _, err := receive(s); !errors.Is(err, io.EOF) {
		t.Errorf("server stream's end: %v", err)
	}
	s = stream(t, conn, ctx, "Client", "a", "b", "c")
	_ = s.CloseSend()
	if got, err := receive(s); got != "a,b,c" || err != nil {
		t.Errorf("client stream: %q, %v", got, err)
	}
	s = stream(t, conn, ctx, "Both")
	for i := range 20 { // each answer comes before the next question
		if err := s.SendMsg(wrapperspb.String(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if got, err := receive(s); got != fmt.Sprint(i, "!") || err != nil {
			t.Fatalf("both ways: %q, %v", got, err)
		}
	}
	_ = s.CloseSend()
	if _, err := receive(s); !errors.Is(err, io.EOF) {
		t.Errorf("both ways' end: %v", err)
	}
}
