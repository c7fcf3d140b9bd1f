// Calls a server that is taken over again and again; see ../../host/hand_overs.rs. Until its input
// ends: unary calls and a stream on each of four channels, and new connections.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	channels = 4
	call     = 16 * time.Millisecond
	connect  = 10 * time.Millisecond
)

// outcome counts, and remembers what failed.
type outcome struct {
	mutex  sync.Mutex
	all    int
	failed map[string]int
}

func (o *outcome) note(err error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.all++
	if err != nil {
		if o.failed == nil {
			o.failed = map[string]int{}
		}
		o.failed[err.Error()]++
	}
}

func (o *outcome) failures() (sum int) {
	for _, times := range o.failed {
		sum += times
	}
	return sum
}

var calls, connects, streams outcome

func channel(address string) *grpc.ClientConn {
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	return channel
}

func check(ctx context.Context, channel *grpc.ClientConn) error {
	_, err := health.NewHealthClient(channel).Check(ctx, &health.HealthCheckRequest{})
	return err
}

// every does something at an interval until the context ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			do()
		}
	}
}

// watch has one stream after the other, each until its server ends it.
func watch(ctx context.Context, channel *grpc.ClientConn) {
	for ctx.Err() == nil {
		stream, err := health.NewHealthClient(channel).Watch(ctx, &health.HealthCheckRequest{})
		for err == nil {
			_, err = stream.Recv()
		}
		if ctx.Err() != nil {
			return
		}
		// The end at the server's drain deadline.
		if err == io.EOF || status.Code(err) == codes.Unavailable {
			err = nil
		}
		streams.note(err)
	}
}

func main() {
	address := os.Args[1]
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for range channels {
		channel := channel(address)
		defer channel.Close()
		if err := check(ctx, channel); err != nil {
			panic(err)
		}
		group.Go(func() {
			every(ctx, call, func() { calls.note(check(context.Background(), channel)) })
		})
		group.Go(func() { watch(ctx, channel) })
	}
	group.Go(func() {
		every(ctx, connect, func() {
			channel := channel(address)
			connects.note(check(context.Background(), channel))
			channel.Close()
		})
	})
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	stop()
	group.Wait()
	fmt.Printf("calls=%d failed=%d connects=%d failed=%d streams=%d failed=%d\n", calls.all,
		calls.failures(), connects.all, connects.failures(), streams.all, streams.failures())
	for _, outcome := range []*outcome{&calls, &connects, &streams} {
		for text, times := range outcome.failed {
			fmt.Println(times, "times", text)
		}
	}
}
