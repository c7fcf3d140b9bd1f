package example;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import ping.v1.Ping.PingRequest;
import ping.v1.PingServiceGrpc;

/** A Ping client. The address picks the transport: unix:/tmp/ping.sock or 127.0.0.1:50051. */
public final class Client {
  public static void main(String[] args) {
    String address = args.length > 0 ? args[0] : "unix:/tmp/ping.sock";
    ManagedChannel channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    try {
      var ping = PingServiceGrpc.newBlockingStub(channel);
      var reply = ping.ping(PingRequest.newBuilder().setMessage("ping").build());
      System.out.println(reply.getMessage());
    } finally {
      channel.shutdownNow();
    }
  }
}
