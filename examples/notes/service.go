package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What protoc-gen-go-grpc would make of notes.proto, by hand, so that this example needs no generator: the service and its
// four methods, one of each kind.

const serviceName = "notes.Notes"

type (
	text   = wrapperspb.StringValue
	number = wrapperspb.UInt64Value
)

// notesServer is the service.
type notesServer interface {
	Add(context.Context, *text) (*number, error)
	AddMany(grpc.ClientStreamingServer[text, number]) error
	Watch(*number, grpc.ServerStreamingServer[text]) error
	Echo(grpc.BidiStreamingServer[text, text]) error
}

var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName, HandlerType: (*notesServer)(nil), Metadata: "notes.proto",
	Methods: []grpc.MethodDesc{{MethodName: "Add", Handler: func(srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
		in := new(text)
		if err := decode(in); err != nil {
			return nil, err
		}
		call := func(ctx context.Context, in any) (any, error) { return srv.(notesServer).Add(ctx, in.(*text)) }
		if around == nil {
			return call(ctx, in)
		}
		return around(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + serviceName + "/Add"}, call)
	}}},
	Streams: []grpc.StreamDesc{
		{StreamName: "AddMany", ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			return srv.(notesServer).AddMany(&grpc.GenericServerStream[text, number]{ServerStream: s})
		}},
		{StreamName: "Watch", ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			from := new(number)
			if err := s.RecvMsg(from); err != nil {
				return err
			}
			return srv.(notesServer).Watch(from, &grpc.GenericServerStream[number, text]{ServerStream: s})
		}},
		{StreamName: "Echo", ClientStreams: true, ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			return srv.(notesServer).Echo(&grpc.GenericServerStream[text, text]{ServerStream: s})
		}},
	},
}
