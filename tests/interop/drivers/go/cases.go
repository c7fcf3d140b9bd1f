package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"

	"driver/interopv1"
	"driver/pingv1"
)

const (
	limit    = 4 << 20
	patience = 30 * time.Second
)

// The cases; their context ends when patience does.
var cases = map[string]func(context.Context, *grpc.ClientConn) error{
	"unary":      unary,
	"watch":      watch,
	"collect":    collect,
	"converse":   converse,
	"metadata":   echoed,
	"status":     statuses,
	"deadline":   deadline,
	"cancel":     cancelled,
	"sizes":      sizes,
	"gzip":       compressed,
	"parallel":   parallel,
	"lost":       lost,
	"restart":    restart,
	"health":     healthy,
	"reflection": reflected,
}

// pings and tests are short names for what most cases start with.
func pings(conn *grpc.ClientConn) pingv1.PingServiceClient { return pingv1.NewPingServiceClient(conn) }
func tests(conn *grpc.ClientConn) interopv1.InteropServiceClient {
	return interopv1.NewInteropServiceClient(conn)
}

func expect[T any](name string, found, expected T) error {
	if f, e := fmt.Sprintf("%q", any(found)), fmt.Sprintf("%q", any(expected)); f != e {
		return fmt.Errorf("%s: %v instead of %v", name, found, expected)
	}
	return nil
}

func expectCode(err error, expected ...codes.Code) error {
	if slices.Contains(expected, status.Code(err)) {
		return nil
	}
	return fmt.Errorf("%v instead of %v", err, expected)
}

// receiveAll gives all messages of a stream.
func receiveAll[T any](receive func() (T, error)) ([]T, error) {
	var all []T
	for {
		message, err := receive()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, message)
	}
}

func unary(ctx context.Context, conn *grpc.ClientConn) error {
	request := &pingv1.PingRequest{Message: "ping", Payload: []byte{0, 1, 255}, Sequence: 7}
	reply, err := pings(conn).Ping(ctx, request)
	if err != nil {
		return err
	}
	if reply.Message != "pong" || !bytes.Equal(reply.Payload, request.Payload) || reply.Sequence != 7 {
		return fmt.Errorf("%v", reply)
	}
	return nil
}

func watch(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := pings(conn).Watch(ctx, &pingv1.WatchRequest{Count: 3})
	if err != nil {
		return err
	}
	pongs, err := receiveAll(stream.Recv)
	if err != nil {
		return err
	}
	var sequences []uint64
	for _, pong := range pongs {
		sequences = append(sequences, pong.Sequence)
	}
	return expect("sequences", sequences, []uint64{0, 1, 2})
}

func collect(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := pings(conn).Collect(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		if err := stream.Send(&pingv1.CollectRequest{Payload: make([]byte, 100)}); err != nil {
			return err
		}
	}
	collected, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	return expect("collected", []uint64{collected.Count, collected.Bytes}, []uint64{3, 300})
}

func converse(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := pings(conn).Converse(ctx)
	if err != nil {
		return err
	}
	for sequence := range uint64(3) {
		turn := &pingv1.ConverseRequest{Message: "ping", Sequence: sequence}
		if err := stream.Send(turn); err != nil {
			return err
		}
		reply, err := stream.Recv()
		if err != nil {
			return err
		}
		if reply.Message != "pong" || reply.Sequence != sequence {
			return fmt.Errorf("%v for %d", reply, sequence)
		}
	}
	if err := stream.Send(&pingv1.ConverseRequest{Message: "end"}); err != nil {
		return err
	}
	_, err = stream.Recv()
	return expect("end", err, io.EOF)
}

func echoed(ctx context.Context, conn *grpc.ClientConn) error {
	text, data := "some text", string([]byte{0, 127, 128, 255})
	ctx = metadata.AppendToOutgoingContext(ctx, "echo-text", text, "echo-bin", data)
	var initial, trailing metadata.MD
	request := &interopv1.AnswerRequest{}
	_, err := tests(conn).Answer(ctx, request, grpc.Header(&initial), grpc.Trailer(&trailing))
	if err != nil {
		return err
	}
	found := slices.Concat(initial["echo-text"], initial["echo-bin"],
		trailing["trailing-text"], trailing["trailing-bin"])
	return expect("metadata", found, []string{text, data, text, data})
}

func statuses(ctx context.Context, conn *grpc.ClientConn) error {
	detail, err := anypb.New(&pingv1.PingRequest{Payload: []byte{0, 255}, Sequence: 7})
	if err != nil {
		return err
	}
	for code := int32(1); code <= 16; code++ {
		request := &interopv1.AnswerRequest{
			Code: code, Message: "100 % naïve: 鍵がない\n", Details: []*anypb.Any{detail},
		}
		_, err := tests(conn).Answer(ctx, request)
		found := status.Convert(err)
		if found.Code() != codes.Code(code) || found.Message() != request.Message {
			return fmt.Errorf("%d: %v", code, err)
		}
		details := found.Proto().Details
		if len(details) != 1 || !proto.Equal(details[0], detail) {
			return fmt.Errorf("%d: details %v", code, details)
		}
	}
	return nil
}

// unique gives an identifier that no other call has.
func unique() string { return fmt.Sprintf("%d %d", os.Getpid(), time.Now().UnixNano()) }

// hold gives a held call that has begun, and its identifier.
func hold(ctx context.Context, conn *grpc.ClientConn) (
	grpc.ServerStreamingClient[interopv1.HoldResponse], string, error) {
	id := unique()
	held, err := tests(conn).Hold(ctx, &interopv1.HoldRequest{Id: id})
	if err == nil {
		_, err = held.Recv()
	}
	return held, id, err
}

func ended(ctx context.Context, conn *grpc.ClientConn, id string) error {
	if _, err := tests(conn).Ended(ctx, &interopv1.EndedRequest{Id: id}); err != nil {
		return fmt.Errorf("the server did not notice: %w", err)
	}
	return nil
}

func deadline(ctx context.Context, conn *grpc.ClientConn) error {
	// Connecting is not to take from the deadline.
	if err := unary(ctx, conn); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	held, id, err := hold(short, conn)
	if err != nil {
		return err
	}
	_, err = held.Recv()
	if err := expectCode(err, codes.DeadlineExceeded); err != nil {
		return err
	}
	return ended(ctx, conn, id)
}

func cancelled(ctx context.Context, conn *grpc.ClientConn) error {
	call, cancel := context.WithCancel(ctx)
	_, id, err := hold(call, conn)
	cancel()
	if err != nil {
		return err
	}
	return ended(ctx, conn, id)
}

// payloadOf gives the payload that makes a ping, or its pong, so many bytes.
func payloadOf(size int) []byte { return make([]byte, size-11) }

func sizes(ctx context.Context, conn *grpc.ClientConn) error {
	lengths := []int{1, 1 << 10, 1 << 16, 1 << 20, len(payloadOf(limit - 1))}
	for _, length := range lengths {
		payload := bytes.Repeat([]byte{7}, length)
		reply, err := pings(conn).Ping(ctx, &pingv1.PingRequest{Message: "ping", Payload: payload})
		if err != nil {
			return fmt.Errorf("payload of %d bytes: %w", length, err)
		}
		if !bytes.Equal(reply.Payload, payload) {
			return fmt.Errorf("payload of %d bytes: another came back", length)
		}
	}
	tooLarge := &pingv1.PingRequest{Message: "ping", Payload: payloadOf(limit + 1)}
	_, err := pings(conn).Ping(ctx, tooLarge)
	if err := expectCode(err, codes.ResourceExhausted, codes.OutOfRange); err != nil {
		return err
	}
	_, err = pings(conn).Ping(ctx, &pingv1.PingRequest{})
	return err
}

func compressed(ctx context.Context, conn *grpc.ClientConn) error {
	var initial metadata.MD
	request := &pingv1.PingRequest{Message: "ping", Payload: make([]byte, 1<<16)}
	reply, err := pings(conn).Ping(ctx, request, grpc.UseCompressor(gzip.Name), grpc.Header(&initial))
	if err != nil {
		return err
	}
	if !bytes.Equal(reply.Payload, request.Payload) {
		return fmt.Errorf("another payload came back")
	}
	found := slices.Concat(initial["request-encoding"], initial["response-encoding"])
	return expect("encodings", found, []string{"gzip", "gzip"})
}

func parallel(ctx context.Context, conn *grpc.ClientConn) error {
	return inParallel(func(sequence uint64) error {
		request := &pingv1.PingRequest{Payload: make([]byte, 1000), Sequence: sequence}
		reply, err := pings(conn).Ping(ctx, request)
		if err != nil {
			return err
		}
		return expect("sequence", reply.Sequence, sequence)
	})
}

// inParallel makes 100 calls at once and gives an error of theirs.
func inParallel(call func(uint64) error) error {
	outcomes := make(chan error)
	for sequence := range uint64(100) {
		go func() { outcomes <- call(sequence) }()
	}
	var failed error
	for range 100 {
		failed = errors.Join(failed, <-outcomes)
	}
	return failed
}

// crash ends the server; that this call fails is what it is for.
func crash(ctx context.Context, conn *grpc.ClientConn) {
	tests(conn).Crash(ctx, &interopv1.CrashRequest{})
}

func lost(ctx context.Context, conn *grpc.ClientConn) error {
	held, _, err := hold(ctx, conn)
	if err != nil {
		return err
	}
	crash(ctx, conn)
	_, err = held.Recv()
	return expectCode(err, codes.Unavailable)
}

func restart(ctx context.Context, conn *grpc.ClientConn) error {
	if _, err := pings(conn).Ping(ctx, &pingv1.PingRequest{}); err != nil {
		return err
	}
	crash(ctx, conn)
	for {
		_, err := pings(conn).Ping(ctx, &pingv1.PingRequest{}, grpc.WaitForReady(true))
		// The connection that is being lost may take another call with it, and a proxy does not wait.
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return err
		}
		time.Sleep(patience / 300)
	}
}

func healthy(ctx context.Context, conn *grpc.ClientConn) error {
	client := grpc_health_v1.NewHealthClient(conn)
	for _, service := range []string{"", "ping.v1.PingService"} {
		request := &grpc_health_v1.HealthCheckRequest{Service: service}
		reply, err := client.Check(ctx, request)
		if err != nil {
			return err
		}
		err = expect("status", reply.Status, grpc_health_v1.HealthCheckResponse_SERVING)
		if err != nil {
			return err
		}
	}
	request := &grpc_health_v1.HealthCheckRequest{Service: "no.such.Service"}
	_, err := client.Check(ctx, request)
	return expectCode(err, codes.NotFound)
}

func reflected(ctx context.Context, conn *grpc.ClientConn) error {
	const service = "ping.v1.PingService"
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	ask := func(request *grpc_reflection_v1.ServerReflectionRequest) (
		*grpc_reflection_v1.ServerReflectionResponse, error) {
		if err := stream.Send(request); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	reply, err := ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
	})
	if err != nil {
		return err
	}
	listed := reply.GetListServicesResponse().GetService()
	if !slices.ContainsFunc(listed, func(entry *grpc_reflection_v1.ServiceResponse) bool {
		return entry.Name == service
	}) {
		return fmt.Errorf("not listed: %v", listed)
	}
	reply, err = ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: service,
		},
	})
	if err != nil {
		return err
	}
	for _, encoded := range reply.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(encoded, file); err != nil {
			return err
		}
		if file.GetPackage() == "ping.v1" {
			return expect("methods", len(file.Service[0].Method), 4)
		}
	}
	return fmt.Errorf("no file of the service")
}
