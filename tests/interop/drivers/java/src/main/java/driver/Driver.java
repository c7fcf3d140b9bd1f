package driver;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.netty.NettyChannelBuilder;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.epoll.EpollDomainSocketChannel;
import io.netty.channel.epoll.EpollIoHandler;
import io.netty.channel.unix.DomainSocketAddress;

/** serve ADDRESS, or client|socket ADDRESS CASE...: see ../../README.md. */
public final class Driver {
  public static void main(String[] args) throws Exception {
    String address = args[1];
    switch (args[0]) {
      case "serve" -> Server.serve(address);
      case "client", "socket" -> {
        boolean failed = false;
        for (int i = 2; i < args.length; i++) {
          ManagedChannel channel = args[0].equals("socket") ? bySocket(address) : byName(address);
          String outcome = "ok";
          try {
            Cases.run(args[i], channel);
          } catch (Exception | AssertionError different) {
            failed = true;
            outcome = different.toString().replaceAll("\\s+", " ");
          }
          channel.shutdownNow();
          System.out.println(args[i] + "\t" + outcome);
        }
        System.exit(failed ? 1 : 0);
      }
      default -> throw new IllegalArgumentException(args[0] + ": serve, client or socket");
    }
  }

  private static ManagedChannel byName(String address) {
    return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
  }

  /** The older form, with netty's own classes. */
  private static ManagedChannel bySocket(String address) {
    String path =
        address.startsWith("unix-abstract:")
            ? "\0" + address.substring("unix-abstract:".length())
            : address.substring("unix:".length());
    return NettyChannelBuilder.forAddress(new DomainSocketAddress(path))
        .eventLoopGroup(new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory()))
        .channelType(EpollDomainSocketChannel.class)
        .usePlaintext()
        .build();
  }
}
