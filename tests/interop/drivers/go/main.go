// serve ADDRESS, or client|dialer|tls|connect ADDRESS CASE...: see ../../README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("serve, client, dialer, tls or connect, then an address and cases")
	}
	command, address, chosen := os.Args[1], os.Args[2], os.Args[3:]
	switch command {
	case "serve":
		serve(address)
	case "client", "dialer", "tls", "connect":
		failed := false
		for _, name := range chosen {
			outcome := "ok"
			if err := runCase(command, address, name); err != nil {
				failed = true
				outcome = strings.Join(strings.Fields(err.Error()), " ")
			}
			fmt.Printf("%s\t%s\n", name, outcome)
		}
		if failed {
			os.Exit(1)
		}
	default:
		log.Fatalf("%s: serve, client, dialer, tls or connect", command)
	}
}

// runCase runs one case on a channel of its own.
func runCase(command, address, name string) error {
	if command == "connect" {
		return connectCase(address, name)
	}
	transport := insecure.NewCredentials()
	if command == "tls" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(os.Getenv("CA"), ""); err != nil {
			return err
		}
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport)}
	if command == "dialer" {
		// The form that many programs have: a bare path, and a dialer that knows what it is.
		address = "passthrough:///" + strings.TrimPrefix(address, "unix:")
		options = append(options, grpc.WithContextDialer(
			func(ctx context.Context, path string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}))
	}
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	test, found := cases[name]
	if !found {
		return fmt.Errorf("no such case")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return test(ctx, conn)
}
