// Calls with large messages by grpc-go, all at once.
//
// Usage: client ADDRESS CONNECTIONS CALLS BYTES: so many calls on each of so many connections, with so
// many bytes of payload each. Prints how many seconds it took, and fails unless each is answered whole.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// raw passes messages through as they are.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (raw) Name() string { return "proto" }

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		fail(err)
	}
	return n
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	address, connections, calls, size := os.Args[1], number(os.Args[2]), number(os.Args[3]), number(os.Args[4])
	payload := bytes.Repeat([]byte{7}, size)
	// PingRequest.payload
	request := append(binary.AppendUvarint([]byte{2<<3 | 2}, uint64(size)), payload...)
	var channels []*grpc.ClientConn
	for range connections {
		channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
		if err != nil {
			fail(err)
		}
		channels = append(channels, channel)
	}
	ended := make(chan error)
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	for _, channel := range channels {
		for range calls {
			go func() {
				var response []byte
				err := channel.Invoke(ctx, "/ping.v1.PingService/Ping", &request, &response)
				if err == nil && !bytes.Contains(response, payload) {
					err = fmt.Errorf("%d bytes came back instead of more than %d", len(response), size)
				}
				ended <- err
			}()
		}
	}
	failed := 0
	for range connections * calls {
		if err := <-ended; err != nil {
			failed++
			if failed == 1 {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
	if failed > 0 {
		fail(fmt.Errorf("%d of %d calls failed", failed, connections*calls))
	}
	fmt.Printf("%.3f\n", time.Since(started).Seconds())
}
