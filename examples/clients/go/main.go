// A Ping client. The address picks the transport: unix:/tmp/ping.sock or 127.0.0.1:50051.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example/pingv1"
)

func main() {
	address := "unix:/tmp/ping.sock"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	reply, err := pingv1.NewPingServiceClient(conn).Ping(ctx, &pingv1.PingRequest{Message: "ping"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.Message)
}
