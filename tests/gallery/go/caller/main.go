// A client of examples/behind-proxy, with its stubs' part written by hand: the service has one method,
// whose request is empty.
//
//	caller certificates DIRECTORY          makes an authority, a server's and a client's certificate
//	caller ask ADDRESS DIRECTORY [HEADER]  asks once who it is; by TLS unless the address is a socket
//	caller load ADDRESS DIRECTORY RATE     asks so many times a second until SIGTERM
//
// HEADER is what a liar sends as x-forwarded-client-cert. load says "answered by PID" for each server
// process that it has not met before, and at the end how many calls were made and how many failed, and
// how: it never asks a second time.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: caller certificates|ask|load …")
	}
	arguments := os.Args[2:]
	var err error
	switch os.Args[1] {
	case "certificates":
		err = certificates(arguments[0])
	case "ask":
		err = ask(arguments)
	case "load":
		err = load(arguments)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// answer is caller.v1.WhoAmIResponse.
type answer struct {
	caller string
	pid    uint64
}

// codec reads that message and writes empty ones.
type codec struct{}

func (codec) Name() string                { return "proto" }
func (codec) Marshal(any) ([]byte, error) { return nil, nil }
func (codec) Unmarshal(data []byte, into any) error {
	response := into.(*answer)
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		switch {
		case number == 1 && kind == protowire.BytesType:
			response.caller, n = protowire.ConsumeString(data)
		case number == 2 && kind == protowire.VarintType:
			response.pid, n = protowire.ConsumeVarint(data)
		default:
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
	}
	return nil
}

func connect(address, directory string) (*grpc.ClientConn, error) {
	security := insecure.NewCredentials()
	if !strings.HasPrefix(address, "unix:") {
		config, err := clientTLS(directory)
		if err != nil {
			return nil, err
		}
		security = credentials.NewTLS(config)
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(security),
		// Whatever is repeated is repeated by the proxy.
		grpc.WithDisableRetry())
}

func whoAmI(ctx context.Context, conn *grpc.ClientConn) (*answer, error) {
	response := &answer{}
	err := conn.Invoke(ctx, "/caller.v1.CallerService/WhoAmI", nil, response, grpc.ForceCodec(codec{}))
	return response, err
}

func ask(arguments []string) error {
	conn, err := connect(arguments[0], arguments[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if len(arguments) > 2 {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-forwarded-client-cert", arguments[2])
	}
	response, err := whoAmI(ctx, conn)
	if err != nil {
		return err
	}
	fmt.Println(response.caller)
	return nil
}

func load(arguments []string) error {
	conn, err := connect(arguments[0], arguments[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	rate, err := strconv.Atoi(arguments[2])
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)

	var (
		mutex  sync.Mutex
		calls  = map[uint64]int{}
		failed = map[string]int{}
		open   sync.WaitGroup
	)
	once := func() {
		defer open.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		response, err := whoAmI(ctx, conn)
		mutex.Lock()
		defer mutex.Unlock()
		if err != nil {
			failed[err.Error()]++
			return
		}
		if calls[response.pid]++; calls[response.pid] == 1 {
			fmt.Printf("answered by %d\n", response.pid)
		}
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	for total := 0; ; total++ {
		select {
		case <-tick.C:
			open.Add(1)
			go once()
		case <-stop:
			open.Wait()
			failures := 0
			for why, times := range failed {
				fmt.Printf("%d × %s\n", times, why)
				failures += times
			}
			fmt.Printf("%d calls to %v, %d failures\n", total, calls, failures)
			return nil
		}
	}
}
