package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"driver/interopv1"
	"driver/pingv1"
)

// serve is the server that our channel meets.
func serve(address string) {
	network, name := "tcp", address
	if path, found := strings.CutPrefix(address, "unix:"); found {
		network, name = "unix", path
	} else if abstract, found := strings.CutPrefix(address, "unix-abstract:"); found {
		network, name = "unix", "@"+abstract
	}
	listener, err := net.Listen(network, name)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", address)

	server := grpc.NewServer()
	pingv1.RegisterPingServiceServer(server, pingServer{})
	interopv1.RegisterInteropServiceServer(server, &interopServer{})
	serving := health.NewServer()
	serving.SetServingStatus("ping.v1.PingService", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, serving)
	reflection.Register(server)
	log.Fatal(server.Serve(listener))
}

type pingServer struct {
	pingv1.UnimplementedPingServiceServer
}

func (pingServer) Ping(_ context.Context, request *pingv1.PingRequest) (*pingv1.PingResponse, error) {
	return &pingv1.PingResponse{
		Message: "pong", Payload: request.Payload, Sequence: request.Sequence,
	}, nil
}

func (pingServer) Converse(
	stream grpc.BidiStreamingServer[pingv1.ConverseRequest, pingv1.ConverseResponse]) error {
	for {
		turn, err := stream.Recv()
		if err == io.EOF || err == nil && turn.Message == "end" {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pingv1.ConverseResponse{
			Message: "pong", Payload: turn.Payload, Sequence: turn.Sequence,
		}); err != nil {
			return err
		}
	}
}

func (pingServer) Watch(
	request *pingv1.WatchRequest, stream grpc.ServerStreamingServer[pingv1.WatchResponse]) error {
	for sequence := range uint64(request.Count) {
		if err := stream.Send(&pingv1.WatchResponse{
			Message: "pong", Payload: request.Payload, Sequence: sequence,
		}); err != nil {
			return err
		}
	}
	return nil
}

func (pingServer) Collect(
	stream grpc.ClientStreamingServer[pingv1.CollectRequest, pingv1.CollectResponse]) error {
	collected := &pingv1.CollectResponse{}
	for {
		ping, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(collected)
		}
		if err != nil {
			return err
		}
		collected.Count++
		collected.Bytes += uint64(len(ping.Payload))
	}
}

type interopServer struct {
	interopv1.UnimplementedInteropServiceServer
	// A channel for each held call, closed when it has ended.
	over sync.Map
}

func (s *interopServer) ending(id string) chan struct{} {
	over, _ := s.over.LoadOrStore(id, make(chan struct{}))
	return over.(chan struct{})
}

func (s *interopServer) Answer(
	ctx context.Context, request *interopv1.AnswerRequest) (*interopv1.AnswerResponse, error) {
	sent, _ := metadata.FromIncomingContext(ctx)
	initial, trailing := metadata.MD{}, metadata.MD{}
	for _, kind := range []string{"text", "bin"} {
		initial.Set("echo-"+kind, sent["echo-"+kind]...)
		trailing.Set("trailing-"+kind, sent["echo-"+kind]...)
	}
	grpc.SetHeader(ctx, initial)
	grpc.SetTrailer(ctx, trailing)
	if request.Code != 0 {
		return nil, status.FromProto(&statuspb.Status{
			Code: request.Code, Message: request.Message, Details: request.Details,
		}).Err()
	}
	return &interopv1.AnswerResponse{}, nil
}

func (s *interopServer) Hold(
	request *interopv1.HoldRequest, stream grpc.ServerStreamingServer[interopv1.HoldResponse]) error {
	defer close(s.ending(request.Id))
	if err := stream.Send(&interopv1.HoldResponse{}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (s *interopServer) Ended(
	ctx context.Context, request *interopv1.EndedRequest) (*interopv1.EndedResponse, error) {
	select {
	case <-s.ending(request.Id):
		return &interopv1.EndedResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *interopServer) Crash(
	context.Context, *interopv1.CrashRequest) (*interopv1.CrashResponse, error) {
	os.Exit(0)
	return nil, nil
}
