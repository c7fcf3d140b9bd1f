package driver;

import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerInterceptors;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.protobuf.services.ProtoReflectionServiceV1;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.epoll.EpollIoHandler;
import io.netty.channel.epoll.EpollServerDomainSocketChannel;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.channel.unix.DomainSocketAddress;
import interop.v1.Interop.AnswerRequest;
import interop.v1.Interop.AnswerResponse;
import interop.v1.Interop.CrashRequest;
import interop.v1.Interop.CrashResponse;
import interop.v1.Interop.EndedRequest;
import interop.v1.Interop.EndedResponse;
import interop.v1.Interop.HoldRequest;
import interop.v1.Interop.HoldResponse;
import interop.v1.InteropServiceGrpc.InteropServiceImplBase;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import ping.v1.Ping.CollectRequest;
import ping.v1.Ping.CollectResponse;
import ping.v1.Ping.ConverseRequest;
import ping.v1.Ping.ConverseResponse;
import ping.v1.Ping.PingRequest;
import ping.v1.Ping.PingResponse;
import ping.v1.Ping.WatchRequest;
import ping.v1.Ping.WatchResponse;
import ping.v1.PingServiceGrpc.PingServiceImplBase;

/** The server that our channel meets: Ping, health, reflection and the tests' own service. */
final class Server {
  private static final Context.Key<Metadata> SENT = Context.key("sent");

  static void serve(String address) throws Exception {
    boolean unix = address.startsWith("unix:");
    String[] parts = address.split(":");
    SocketAddress socket =
        unix
            ? new DomainSocketAddress(parts[1])
            : new InetSocketAddress(parts[0], Integer.parseInt(parts[1]));
    HealthStatusManager health = new HealthStatusManager();
    health.setStatus("ping.v1.PingService", ServingStatus.SERVING);
    NettyServerBuilder.forAddress(socket, InsecureServerCredentials.create())
        .channelType(unix ? EpollServerDomainSocketChannel.class : EpollServerSocketChannel.class)
        .bossEventLoopGroup(new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory()))
        .workerEventLoopGroup(new MultiThreadIoEventLoopGroup(1, EpollIoHandler.newFactory()))
        .addService(ServerInterceptors.intercept(new Pings(), new Sent()))
        .addService(ServerInterceptors.intercept(new Tests(), new Sent()))
        .addService(health.getHealthService())
        .addService(ProtoReflectionServiceV1.newInstance())
        .build()
        .start();
    System.out.println("listening on " + address);
  }

  /** Lets services see the metadata that was sent, and sends back what there is to echo. */
  private static final class Sent implements ServerInterceptor {
    @Override
    public <A, B> ServerCall.Listener<A> interceptCall(
        ServerCall<A, B> call, Metadata sent, ServerCallHandler<A, B> next) {
      var echoing =
          new SimpleForwardingServerCall<A, B>(call) {
            @Override
            public void sendHeaders(Metadata headers) {
              echo(Cases.text("echo-text"), Cases.text("echo-text"), headers);
              echo(Cases.binary("echo-bin"), Cases.binary("echo-bin"), headers);
              super.sendHeaders(headers);
            }

            @Override
            public void close(Status status, Metadata trailers) {
              echo(Cases.text("echo-text"), Cases.text("trailing-text"), trailers);
              echo(Cases.binary("echo-bin"), Cases.binary("trailing-bin"), trailers);
              super.close(status, trailers);
            }

            private <T> void echo(Metadata.Key<T> from, Metadata.Key<T> to, Metadata into) {
              if (sent.containsKey(from)) into.put(to, sent.get(from));
            }
          };
      Context context = Context.current().withValue(SENT, sent);
      return Contexts.interceptCall(context, echoing, sent, next);
    }
  }

  private static final class Pings extends PingServiceImplBase {
    @Override
    public void ping(PingRequest request, StreamObserver<PingResponse> replies) {
      // The library would compress only where it is told to.
      if ("gzip".equals(SENT.get().get(Cases.text("answer-encoding")))) {
        ((ServerCallStreamObserver<PingResponse>) replies).setCompression("gzip");
      }
      replies.onNext(
          PingResponse.newBuilder()
              .setMessage("pong")
              .setPayload(request.getPayload())
              .setSequence(request.getSequence())
              .build());
      replies.onCompleted();
    }

    @Override
    public StreamObserver<ConverseRequest> converse(StreamObserver<ConverseResponse> replies) {
      return new Requests<>(replies) {
        @Override
        public void onNext(ConverseRequest turn) {
          if (turn.getMessage().equals("end")) {
            finish();
            return;
          }
          replies.onNext(
              ConverseResponse.newBuilder()
                  .setMessage("pong")
                  .setPayload(turn.getPayload())
                  .setSequence(turn.getSequence())
                  .build());
        }
      };
    }

    @Override
    public void watch(WatchRequest request, StreamObserver<WatchResponse> replies) {
      for (long i = 0; i < request.getCount(); i++) {
        replies.onNext(
            WatchResponse.newBuilder()
                .setMessage("pong")
                .setPayload(request.getPayload())
                .setSequence(i)
                .build());
      }
      replies.onCompleted();
    }

    @Override
    public StreamObserver<CollectRequest> collect(StreamObserver<CollectResponse> replies) {
      CollectResponse.Builder collected = CollectResponse.newBuilder();
      return new Requests<>(replies) {
        @Override
        public void onNext(CollectRequest ping) {
          collected.setCount(collected.getCount() + 1);
          collected.setBytes(collected.getBytes() + ping.getPayload().size());
        }

        @Override
        public void onCompleted() {
          replies.onNext(collected.build());
          finish();
        }
      };
    }
  }

  /** A stream of requests whose end ends the replies, once. */
  private abstract static class Requests<A, B> implements StreamObserver<A> {
    private final StreamObserver<B> replies;
    private boolean finished;

    Requests(StreamObserver<B> replies) {
      this.replies = replies;
    }

    final void finish() {
      if (!finished) replies.onCompleted();
      finished = true;
    }

    @Override
    public void onError(Throwable error) {}

    @Override
    public void onCompleted() {
      finish();
    }
  }

  private static final class Tests extends InteropServiceImplBase {
    private final ConcurrentHashMap<String, CompletableFuture<Void>> ends =
        new ConcurrentHashMap<>();

    private CompletableFuture<Void> end(String id) {
      return ends.computeIfAbsent(id, unused -> new CompletableFuture<>());
    }

    @Override
    public void answer(AnswerRequest request, StreamObserver<AnswerResponse> replies) {
      if (request.getCode() == 0) {
        replies.onNext(AnswerResponse.getDefaultInstance());
        replies.onCompleted();
        return;
      }
      Metadata trailers = new Metadata();
      trailers.put(Cases.binary("grpc-status-details-bin"), request.toByteArray());
      Status status =
          Status.fromCodeValue(request.getCode()).withDescription(request.getMessage());
      replies.onError(status.asRuntimeException(trailers));
    }

    @Override
    public void hold(HoldRequest request, StreamObserver<HoldResponse> replies) {
      var call = (ServerCallStreamObserver<HoldResponse>) replies;
      call.setOnCancelHandler(() -> end(request.getId()).complete(null));
      call.onNext(HoldResponse.getDefaultInstance());
    }

    @Override
    public void ended(EndedRequest request, StreamObserver<EndedResponse> replies) {
      end(request.getId())
          .thenRun(
              () -> {
                replies.onNext(EndedResponse.getDefaultInstance());
                replies.onCompleted();
              });
    }

    @Override
    public void crash(CrashRequest request, StreamObserver<CrashResponse> replies) {
      Runtime.getRuntime().halt(0);
    }
  }
}
