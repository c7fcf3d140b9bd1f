// Sequential calls by grpc-go, which sends a PING with nearly every one: a server that counts them
// as a flood would tell it to go away. Every call must succeed, on one connection.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"
)

// connections counts those that were opened: after a GOAWAY another one is.
type connections struct{ opened atomic.Int64 }

func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, begins := s.(*stats.ConnBegin); begins {
		c.opened.Add(1)
	}
}

func (*connections) HandleRPC(context.Context, stats.RPCStats) {}

func (*connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (*connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func main() {
	calls := flag.Int("calls", 1_000_000, "how many, one after the other")
	flag.Parse()
	if err := run(flag.Arg(0), *calls); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address string, calls int) error {
	var seen connections
	channel, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(&seen))
	if err != nil {
		return err
	}
	defer channel.Close()
	client := health.NewHealthClient(channel)
	started := time.Now()
	for call := range calls {
		if _, err := client.Check(context.Background(), &health.HealthCheckRequest{}); err != nil {
			return fmt.Errorf("call %d: %w", call, err)
		}
	}
	if opened := seen.opened.Load(); opened != 1 {
		return fmt.Errorf("%d connections were opened: the server sends its client away", opened)
	}
	each := time.Since(started) / time.Duration(calls)
	fmt.Printf("%d sequential calls by grpc-go %s on one connection, %v each\n",
		calls, grpc.Version, each)
	return nil
}
