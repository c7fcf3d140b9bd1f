package driver;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import interop.v1.Interop.AnswerRequest;
import interop.v1.Interop.CrashRequest;
import interop.v1.Interop.EndedRequest;
import interop.v1.Interop.HoldRequest;
import interop.v1.Interop.HoldResponse;
import interop.v1.InteropServiceGrpc;
import interop.v1.InteropServiceGrpc.InteropServiceBlockingStub;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.LongStream;
import ping.v1.Ping.CollectRequest;
import ping.v1.Ping.CollectResponse;
import ping.v1.Ping.ConverseRequest;
import ping.v1.Ping.ConverseResponse;
import ping.v1.Ping.PingRequest;
import ping.v1.Ping.PingResponse;
import ping.v1.Ping.WatchRequest;
import ping.v1.PingServiceGrpc;
import ping.v1.PingServiceGrpc.PingServiceBlockingStub;

/** The cases. */
final class Cases {
  private static final int LIMIT = 4 << 20;
  private static final long PATIENCE_S = 30;
  private static final String SERVICE = "ping.v1.PingService";

  private interface Case {
    void run(ManagedChannel channel) throws Exception;
  }

  private static final Map<String, Case> ALL =
      Map.ofEntries(
          Map.entry("unary", Cases::unary),
          Map.entry("watch", Cases::watch),
          Map.entry("collect", Cases::collect),
          Map.entry("converse", Cases::converse),
          Map.entry("metadata", Cases::metadata),
          Map.entry("status", Cases::status),
          Map.entry("deadline", Cases::deadline),
          Map.entry("cancel", Cases::cancel),
          Map.entry("sizes", Cases::sizes),
          Map.entry("gzip", Cases::gzip),
          Map.entry("parallel", Cases::parallel),
          Map.entry("lost", Cases::lost),
          Map.entry("restart", Cases::restart),
          Map.entry("health", Cases::health),
          Map.entry("reflection", Cases::reflection));

  static void run(String name, ManagedChannel channel) throws Exception {
    ALL.get(name).run(channel);
  }

  private static void expect(String name, Object found, Object expected) {
    if (!Objects.equals(found, expected)) {
      throw new AssertionError(name + ": " + found + " instead of " + expected);
    }
  }

  private interface Call {
    void run() throws Exception;
  }

  /** The status that a call ends with, with its trailing metadata. */
  private static StatusRuntimeException failure(Call call) throws Exception {
    try {
      call.run();
    } catch (StatusRuntimeException status) {
      return status;
    }
    throw new AssertionError("no error");
  }

  private static void expectCode(StatusRuntimeException found, Status.Code... expected) {
    if (!Arrays.asList(expected).contains(found.getStatus().getCode())) {
      throw new AssertionError(found + " instead of " + Arrays.toString(expected));
    }
  }

  private static <S extends AbstractStub<S>> S patient(S stub) {
    return stub.withDeadlineAfter(PATIENCE_S, TimeUnit.SECONDS);
  }

  private static PingServiceBlockingStub pings(Channel channel) {
    return patient(PingServiceGrpc.newBlockingStub(channel));
  }

  private static InteropServiceBlockingStub tests(Channel channel) {
    return patient(InteropServiceGrpc.newBlockingStub(channel));
  }

  private static ByteString bytes(int... bytes) {
    byte[] array = new byte[bytes.length];
    for (int i = 0; i < bytes.length; i++) array[i] = (byte) bytes[i];
    return ByteString.copyFrom(array);
  }

  private static ByteString zeros(int length) {
    return ByteString.copyFrom(new byte[length]);
  }

  private static PingRequest ping(ByteString payload, long sequence) {
    return PingRequest.newBuilder()
        .setMessage("ping")
        .setPayload(payload)
        .setSequence(sequence)
        .build();
  }

  /** Messages of a stream as they come; last its end, a Status. */
  private static final class Arrivals<T> implements StreamObserver<T> {
    private final BlockingQueue<Object> queue = new LinkedBlockingQueue<>();

    @Override
    public void onNext(T message) {
      queue.add(message);
    }

    @Override
    public void onError(Throwable error) {
      queue.add(Status.fromThrowable(error));
    }

    @Override
    public void onCompleted() {
      queue.add(Status.OK);
    }

    @SuppressWarnings("unchecked")
    T next() throws InterruptedException {
      Object arrived = queue.poll(PATIENCE_S, TimeUnit.SECONDS);
      if (arrived == null || arrived instanceof Status) {
        throw new AssertionError("no message but " + arrived);
      }
      return (T) arrived;
    }

    void expectEnd() throws InterruptedException {
      expect("end", queue.poll(PATIENCE_S, TimeUnit.SECONDS), Status.OK);
    }
  }

  private static void unary(ManagedChannel channel) {
    PingResponse reply = pings(channel).ping(ping(bytes(0, 1, 255), 7));
    expect("message", reply.getMessage(), "pong");
    expect("payload", reply.getPayload(), bytes(0, 1, 255));
    expect("sequence", reply.getSequence(), 7L);
  }

  private static void watch(ManagedChannel channel) {
    List<Long> sequences = new ArrayList<>();
    pings(channel)
        .watch(WatchRequest.newBuilder().setCount(3).build())
        .forEachRemaining(pong -> sequences.add(pong.getSequence()));
    expect("sequences", sequences, List.of(0L, 1L, 2L));
  }

  private static void collect(ManagedChannel channel) throws Exception {
    Arrivals<CollectResponse> replies = new Arrivals<>();
    var pings = patient(PingServiceGrpc.newStub(channel)).collect(replies);
    for (int i = 0; i < 3; i++) {
      pings.onNext(CollectRequest.newBuilder().setPayload(zeros(100)).build());
    }
    pings.onCompleted();
    CollectResponse collected = replies.next();
    expect("count", collected.getCount(), 3L);
    expect("bytes", collected.getBytes(), 300L);
    replies.expectEnd();
  }

  private static void converse(ManagedChannel channel) throws Exception {
    Arrivals<ConverseResponse> replies = new Arrivals<>();
    var turns = patient(PingServiceGrpc.newStub(channel)).converse(replies);
    for (long i = 0; i < 3; i++) {
      turns.onNext(ConverseRequest.newBuilder().setMessage("ping").setSequence(i).build());
      ConverseResponse reply = replies.next();
      expect("message", reply.getMessage(), "pong");
      expect("sequence", reply.getSequence(), i);
    }
    turns.onNext(ConverseRequest.newBuilder().setMessage("end").build());
    replies.expectEnd();
  }

  static Metadata.Key<String> text(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  static Metadata.Key<byte[]> binary(String name) {
    return Metadata.Key.of(name, Metadata.BINARY_BYTE_MARSHALLER);
  }

  private static void metadata(ManagedChannel channel) {
    String words = "some text";
    byte[] data = bytes(0, 127, 128, 255).toByteArray();
    Metadata sent = new Metadata();
    sent.put(text("echo-text"), words);
    sent.put(binary("echo-bin"), data);
    AtomicReference<Metadata> initial = new AtomicReference<>();
    AtomicReference<Metadata> trailing = new AtomicReference<>();
    tests(
            ClientInterceptors.intercept(
                channel,
                MetadataUtils.newAttachHeadersInterceptor(sent),
                MetadataUtils.newCaptureMetadataInterceptor(initial, trailing)))
        .answer(AnswerRequest.getDefaultInstance());
    expect("initial text", initial.get().get(text("echo-text")), words);
    expect("trailing text", trailing.get().get(text("trailing-text")), words);
    byte[] found = initial.get().get(binary("echo-bin"));
    expect("initial binary", Arrays.toString(found), Arrays.toString(data));
    found = trailing.get().get(binary("trailing-bin"));
    expect("trailing binary", Arrays.toString(found), Arrays.toString(data));
  }

  private static void status(ManagedChannel channel) throws Exception {
    for (int code = 1; code <= 16; code++) {
      AnswerRequest request =
          AnswerRequest.newBuilder()
              .setCode(code)
              .setMessage("100 % naïve: 鍵がない\n")
              .addDetails(Any.pack(ping(bytes(0, 255), 7)))
              .build();
      StatusRuntimeException found = failure(() -> tests(channel).answer(request));
      expect("code", found.getStatus().getCode().value(), code);
      expect("message", found.getStatus().getDescription(), request.getMessage());
      byte[] details = found.getTrailers().get(binary("grpc-status-details-bin"));
      expect("details", AnswerRequest.parseFrom(details), request);
    }
  }

  private static String unique() {
    return ProcessHandle.current().pid() + " " + System.nanoTime();
  }

  /** A held call that has begun. */
  private static Iterator<HoldResponse> hold(InteropServiceBlockingStub stub, String id) {
    var messages = stub.hold(HoldRequest.newBuilder().setId(id).build());
    messages.next();
    return messages;
  }

  private static void expectServerNoticed(ManagedChannel channel, String id) {
    tests(channel).ended(EndedRequest.newBuilder().setId(id).build());
  }

  private static void deadline(ManagedChannel channel) throws Exception {
    String id = unique();
    // Connecting is not to take from the deadline.
    unary(channel);
    var held = hold(tests(channel).withDeadlineAfter(500, TimeUnit.MILLISECONDS), id);
    expectCode(failure(held::next), Status.Code.DEADLINE_EXCEEDED);
    expectServerNoticed(channel, id);
  }

  private static void cancel(ManagedChannel channel) throws Exception {
    String id = unique();
    try (var context = Context.current().withCancellation()) {
      var held = context.call(() -> hold(tests(channel), id));
      context.cancel(null);
      expectCode(failure(held::next), Status.Code.CANCELLED);
    }
    expectServerNoticed(channel, id);
  }

  /** The payload that makes a ping, or its pong, so many bytes. */
  private static ByteString payloadOf(int size) {
    return zeros(size - 11);
  }

  private static void sizes(ManagedChannel channel) throws Exception {
    int largest = payloadOf(LIMIT - 1).size();
    for (int length : new int[] {1, 1 << 10, 1 << 16, 1 << 20, largest}) {
      PingResponse reply = pings(channel).ping(ping(zeros(length), 0));
      expect("payload", reply.getPayload().size(), length);
    }
    var refused = failure(() -> pings(channel).ping(ping(payloadOf(LIMIT + 1), 0)));
    expectCode(refused, Status.Code.RESOURCE_EXHAUSTED, Status.Code.OUT_OF_RANGE);
    pings(channel).ping(ping(zeros(0), 0));
  }

  private static void gzip(ManagedChannel channel) {
    AtomicReference<Metadata> initial = new AtomicReference<>();
    var capture = MetadataUtils.newCaptureMetadataInterceptor(initial, new AtomicReference<>());
    var stub = pings(ClientInterceptors.intercept(channel, capture)).withCompression("gzip");
    expect("payload", stub.ping(ping(zeros(1 << 16), 0)).getPayload(), zeros(1 << 16));
    expect("request", initial.get().get(text("request-encoding")), "gzip");
    expect("response", initial.get().get(text("response-encoding")), "gzip");
  }

  private static void parallel(ManagedChannel channel) throws Exception {
    var stub = patient(PingServiceGrpc.newFutureStub(channel));
    var calls =
        LongStream.range(0, 100).mapToObj(i -> stub.ping(ping(zeros(1000), i))).toList();
    for (int i = 0; i < 100; i++) {
      expect("sequence", calls.get(i).get().getSequence(), (long) i);
    }
  }

  /** Ends the server; that this call fails is what it is for. */
  private static void crash(ManagedChannel channel) throws Exception {
    failure(() -> tests(channel).crash(CrashRequest.getDefaultInstance()));
  }

  private static void lost(ManagedChannel channel) throws Exception {
    var held = hold(tests(channel), unique());
    crash(channel);
    expectCode(failure(held::next), Status.Code.UNAVAILABLE);
  }

  private static void restart(ManagedChannel channel) throws Exception {
    pings(channel).ping(ping(zeros(0), 0));
    crash(channel);
    for (int attempt = 0; ; attempt++) {
      try {
        pings(channel).withWaitForReady().ping(ping(zeros(0), 0));
        return;
      } catch (StatusRuntimeException status) {
        // The connection that is being lost may take another call with it.
        if (status.getStatus().getCode() != Status.Code.UNAVAILABLE || attempt == 9) throw status;
      }
    }
  }

  private static void health(ManagedChannel channel) throws Exception {
    var stub = patient(HealthGrpc.newBlockingStub(channel));
    for (String service : new String[] {"", SERVICE}) {
      var reply = stub.check(HealthCheckRequest.newBuilder().setService(service).build());
      expect("status", reply.getStatus(), ServingStatus.SERVING);
    }
    var unknown = HealthCheckRequest.newBuilder().setService("no.such.Service").build();
    expectCode(failure(() -> stub.check(unknown)), Status.Code.NOT_FOUND);
  }

  private static void reflection(ManagedChannel channel) throws Exception {
    Arrivals<ServerReflectionResponse> answers = new Arrivals<>();
    var asking =
        patient(ServerReflectionGrpc.newStub(channel)).serverReflectionInfo(answers);
    asking.onNext(ServerReflectionRequest.newBuilder().setListServices("").build());
    var listed =
        answers.next().getListServicesResponse().getServiceList().stream()
            .map(service -> service.getName())
            .toList();
    expect(SERVICE + " in " + listed, listed.contains(SERVICE), true);
    asking.onNext(ServerReflectionRequest.newBuilder().setFileContainingSymbol(SERVICE).build());
    var files = answers.next().getFileDescriptorResponse().getFileDescriptorProtoList();
    asking.onCompleted();
    int methods = 0;
    for (ByteString encoded : files) {
      FileDescriptorProto file = FileDescriptorProto.parseFrom(encoded);
      if (file.getPackage().equals("ping.v1")) methods = file.getService(0).getMethodCount();
    }
    expect("methods", methods, 4);
    answers.expectEnd();
  }
}
