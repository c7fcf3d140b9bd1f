// Makes a call by gRPC for Go, prints what it is told, and stays for three seconds.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	connection, err := grpc.NewClient(os.Args[1], plain)
	if err != nil {
		panic(err)
	}
	patience, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = connection.Invoke(patience, "/ping.v1.PingService/Ping", &emptypb.Empty{}, &emptypb.Empty{})
	fmt.Println(status.Code(err), status.Convert(err).Message())
	time.Sleep(3 * time.Second)
}
