// A stand-in for kubelet, on kubelet's own stubs: what a device plugin sees of it, restarts included.
//
//	kubelet DIRECTORY RESOURCE DEVICE
//
// It starts as kubelet does: removes every file from the directory, then listens on kubelet.sock.
// When the plugin has registered, it lists its devices, allocates one, and waits until the plugin
// says that the device is gone (DEVICE is a file that the stand-in removes and makes again). Then it
// starts anew, as after a restart, and does it all once more. It fails if the plugin does not follow.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	starts   = 3
	patience = 20 * time.Second
)

type kubelet struct {
	api.UnimplementedRegistrationServer
	directory  string
	registered chan *api.RegisterRequest
}

func (k *kubelet) Register(_ context.Context, request *api.RegisterRequest) (*api.Empty, error) {
	if request.Version != api.Version {
		return nil, status.Errorf(codes.InvalidArgument, "version %q", request.Version)
	}
	k.registered <- request
	return &api.Empty{}, nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: kubelet DIRECTORY RESOURCE DEVICE")
	}
	directory, resource, device := os.Args[1], os.Args[2], os.Args[3]
	for start := 1; start <= starts; start++ {
		if err := once(directory, resource, device); err != nil {
			log.Fatalf("start %d: %v", start, err)
		}
		fmt.Printf("start %d: registered, listed, allocated, followed\n", start)
	}
}

// wipe does what kubelet does to its directory when it starts.
func wipe(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(directory, entry.Name())); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

func once(directory, resource, device string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := wipe(directory); err != nil {
		return err
	}
	listener, err := net.Listen("unix", filepath.Join(directory, "kubelet.sock"))
	if err != nil {
		return err
	}
	k := &kubelet{directory: directory, registered: make(chan *api.RegisterRequest, 1)}
	server := grpc.NewServer()
	api.RegisterRegistrationServer(server, k)
	go server.Serve(listener)
	defer server.Stop()

	var request *api.RegisterRequest
	select {
	case request = <-k.registered:
	case <-ctx.Done():
		return fmt.Errorf("the plugin has not registered within %v", patience)
	}
	if request.ResourceName != resource {
		return fmt.Errorf("registered %q", request.ResourceName)
	}

	conn, err := grpc.NewClient("unix:"+filepath.Join(directory, request.Endpoint),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	return use(ctx, api.NewDevicePluginClient(conn), device)
}

// use is what kubelet does with a plugin that has registered.
func use(ctx context.Context, plugin api.DevicePluginClient, device string) error {
	options, err := plugin.GetDevicePluginOptions(ctx, &api.Empty{})
	if err != nil {
		return err
	}
	if options.PreStartRequired || options.GetPreferredAllocationAvailable {
		return fmt.Errorf("options %v", options)
	}
	watch, err := plugin.ListAndWatch(ctx, &api.Empty{})
	if err != nil {
		return err
	}
	if err := expect(watch, api.Healthy); err != nil {
		return err
	}
	response, err := plugin.Allocate(ctx, &api.AllocateRequest{
		ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{"0"}}},
	})
	if err != nil {
		return err
	}
	if devices := response.ContainerResponses[0].Devices; len(devices) != 1 || devices[0].HostPath != device {
		return fmt.Errorf("allocated %v", response)
	}
	_, err = plugin.Allocate(ctx, &api.AllocateRequest{
		ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{"7"}}},
	})
	if status.Code(err) != codes.NotFound {
		return fmt.Errorf("a device that is not there: %v", err)
	}

	if err := os.Remove(device); err != nil {
		return err
	}
	if err := expect(watch, api.Unhealthy); err != nil {
		return err
	}
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		return err
	}
	return expect(watch, api.Healthy)
}

// expect waits for the next list, in which the only device has to have this state.
func expect(watch grpc.ServerStreamingClient[api.ListAndWatchResponse], health string) error {
	list, err := watch.Recv()
	if err != nil {
		return err
	}
	if len(list.Devices) != 1 || list.Devices[0].ID != "0" || list.Devices[0].Health != health {
		return fmt.Errorf("listed %v, not one that is %s", list.Devices, health)
	}
	return nil
}
