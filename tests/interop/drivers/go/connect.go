package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/health/grpc_health_v1"

	"driver/interopv1"
	"driver/pingv1"
)

// connectCase runs one case with connect-go speaking gRPC, on a connection of its own.
func connectCase(address, name string) error {
	test, found := connectCases[name]
	if !found {
		return errors.New("no such case")
	}
	dialer, network, base := &net.Dialer{}, "tcp", "http://"+address
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		network, address, base = "unix", path, "http://localhost"
	}
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols: protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return test(ctx, connector{&http.Client{Transport: transport}, base})
}

type connector struct {
	client *http.Client
	base   string
}

func method[Req, Res any](c connector, name string, options ...connect.ClientOption) *connect.Client[Req, Res] {
	options = append(options, connect.WithGRPC())
	return connect.NewClient[Req, Res](c.client, c.base+"/"+name, options...)
}

func connectPing(c connector, options ...connect.ClientOption) *connect.Client[pingv1.PingRequest, pingv1.PingResponse] {
	return method[pingv1.PingRequest, pingv1.PingResponse](c, "ping.v1.PingService/Ping", options...)
}

func connectAnswer(c connector) *connect.Client[interopv1.AnswerRequest, interopv1.AnswerResponse] {
	return method[interopv1.AnswerRequest, interopv1.AnswerResponse](c, "interop.v1.InteropService/Answer")
}

var connectCases = map[string]func(context.Context, connector) error{
	"unary": func(ctx context.Context, c connector) error {
		request := &pingv1.PingRequest{Message: "ping", Payload: []byte{0, 1, 255}, Sequence: 7}
		reply, err := connectPing(c).CallUnary(ctx, connect.NewRequest(request))
		if err != nil {
			return err
		}
		if reply.Msg.Message != "pong" || !bytes.Equal(reply.Msg.Payload, request.Payload) ||
			reply.Msg.Sequence != 7 {
			return fmt.Errorf("%v", reply.Msg)
		}
		return nil
	},

	"watch": func(ctx context.Context, c connector) error {
		client := method[pingv1.WatchRequest, pingv1.WatchResponse](c, "ping.v1.PingService/Watch")
		pongs, err := client.CallServerStream(ctx, connect.NewRequest(&pingv1.WatchRequest{Count: 3}))
		if err != nil {
			return err
		}
		defer pongs.Close()
		var sequences []uint64
		for pongs.Receive() {
			sequences = append(sequences, pongs.Msg().Sequence)
		}
		if err := pongs.Err(); err != nil {
			return err
		}
		return expect("sequences", sequences, []uint64{0, 1, 2})
	},

	"collect": func(ctx context.Context, c connector) error {
		client := method[pingv1.CollectRequest, pingv1.CollectResponse](c, "ping.v1.PingService/Collect")
		pings, err := client.CallClientStreamSimple(ctx)
		if err != nil {
			return err
		}
		for range 3 {
			if err := pings.Send(&pingv1.CollectRequest{Payload: make([]byte, 100)}); err != nil {
				return err
			}
		}
		collected, err := pings.CloseAndReceive()
		if err != nil {
			return err
		}
		return expect("collected", []uint64{collected.Count, collected.Bytes}, []uint64{3, 300})
	},

	"converse": func(ctx context.Context, c connector) error {
		client := method[pingv1.ConverseRequest, pingv1.ConverseResponse](c, "ping.v1.PingService/Converse")
		turns := client.CallBidiStream(ctx)
		defer turns.CloseResponse()
		for sequence := range uint64(3) {
			turn := &pingv1.ConverseRequest{Message: "ping", Sequence: sequence}
			if err := turns.Send(turn); err != nil {
				return err
			}
			reply, err := turns.Receive()
			if err != nil {
				return err
			}
			if reply.Message != "pong" || reply.Sequence != sequence {
				return fmt.Errorf("%v for %d", reply, sequence)
			}
		}
		return turns.CloseRequest()
	},

	"metadata": func(ctx context.Context, c connector) error {
		text, data := "some text", connect.EncodeBinaryHeader([]byte{0, 127, 128, 255})
		request := connect.NewRequest(&interopv1.AnswerRequest{})
		request.Header().Set("echo-text", text)
		request.Header().Set("echo-bin", data)
		reply, err := connectAnswer(c).CallUnary(ctx, request)
		if err != nil {
			return err
		}
		header, trailer := reply.Header(), reply.Trailer()
		found := []string{header.Get("echo-text"), header.Get("echo-bin"),
			trailer.Get("trailing-text"), trailer.Get("trailing-bin")}
		return expect("metadata", found, []string{text, data, text, data})
	},

	"status": func(ctx context.Context, c connector) error {
		for code := connect.Code(1); code <= 16; code++ {
			request := &interopv1.AnswerRequest{Code: int32(code), Message: "100 % naïve: 鍵がない\n"}
			_, err := connectAnswer(c).CallUnary(ctx, connect.NewRequest(request))
			var found *connect.Error
			if !errors.As(err, &found) || found.Code() != code || found.Message() != request.Message {
				return fmt.Errorf("%d: %v", code, err)
			}
		}
		return nil
	},

	"deadline": func(ctx context.Context, c connector) error {
		// Connecting is not to take from the deadline.
		if _, err := connectPing(c).CallUnary(ctx, connect.NewRequest(&pingv1.PingRequest{})); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		held, id, err := connectHold(short, c)
		if err != nil {
			return err
		}
		if held.Receive() || connect.CodeOf(held.Err()) != connect.CodeDeadlineExceeded {
			return fmt.Errorf("%v instead of the deadline", held.Err())
		}
		return connectEnded(ctx, c, id)
	},

	"cancel": func(ctx context.Context, c connector) error {
		call, cancel := context.WithCancel(ctx)
		_, id, err := connectHold(call, c)
		cancel()
		if err != nil {
			return err
		}
		return connectEnded(ctx, c, id)
	},

	"sizes": func(ctx context.Context, c connector) error {
		lengths := []int{1, 1 << 10, 1 << 16, 1 << 20, len(payloadOf(limit - 1))}
		for _, length := range lengths {
			request := &pingv1.PingRequest{Message: "ping", Payload: bytes.Repeat([]byte{7}, length)}
			reply, err := connectPing(c).CallUnary(ctx, connect.NewRequest(request))
			if err != nil {
				return fmt.Errorf("payload of %d bytes: %w", length, err)
			}
			if !bytes.Equal(reply.Msg.Payload, request.Payload) {
				return fmt.Errorf("payload of %d bytes: another came back", length)
			}
		}
		request := &pingv1.PingRequest{Message: "ping", Payload: payloadOf(limit + 1)}
		_, err := connectPing(c).CallUnary(ctx, connect.NewRequest(request))
		return expect("code", connect.CodeOf(err), connect.CodeResourceExhausted)
	},

	"gzip": func(ctx context.Context, c connector) error {
		request := &pingv1.PingRequest{Message: "ping", Payload: make([]byte, 1<<16)}
		reply, err := connectPing(c, connect.WithSendGzip()).CallUnary(ctx, connect.NewRequest(request))
		if err != nil {
			return err
		}
		header := reply.Header()
		found := []string{header.Get("request-encoding"), header.Get("response-encoding")}
		return expect("encodings", found, []string{"gzip", "gzip"})
	},

	"parallel": func(ctx context.Context, c connector) error {
		return inParallel(func(sequence uint64) error {
			request := &pingv1.PingRequest{Payload: make([]byte, 1000), Sequence: sequence}
			reply, err := connectPing(c).CallUnary(ctx, connect.NewRequest(request))
			if err != nil {
				return err
			}
			return expect("sequence", reply.Msg.Sequence, sequence)
		})
	},

	"health": func(ctx context.Context, c connector) error {
		client := method[grpc_health_v1.HealthCheckRequest, grpc_health_v1.HealthCheckResponse](
			c, "grpc.health.v1.Health/Check")
		request := &grpc_health_v1.HealthCheckRequest{Service: "ping.v1.PingService"}
		reply, err := client.CallUnary(ctx, connect.NewRequest(request))
		if err != nil {
			return err
		}
		return expect("status", reply.Msg.Status, grpc_health_v1.HealthCheckResponse_SERVING)
	},
}

// connectHold gives a held call that has begun, and its identifier.
func connectHold(ctx context.Context, c connector) (
	*connect.ServerStreamForClient[interopv1.HoldResponse], string, error) {
	id := unique()
	client := method[interopv1.HoldRequest, interopv1.HoldResponse](c, "interop.v1.InteropService/Hold")
	held, err := client.CallServerStream(ctx, connect.NewRequest(&interopv1.HoldRequest{Id: id}))
	if err == nil && !held.Receive() {
		err = fmt.Errorf("no first message: %w", held.Err())
	}
	return held, id, err
}

func connectEnded(ctx context.Context, c connector, id string) error {
	client := method[interopv1.EndedRequest, interopv1.EndedResponse](c, "interop.v1.InteropService/Ended")
	_, err := client.CallUnary(ctx, connect.NewRequest(&interopv1.EndedRequest{Id: id}))
	return err
}
