// The cases, on grpc++'s synchronous stubs.
#include <unistd.h>

#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <sstream>
#include <stdexcept>
#include <vector>

#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/grpcpp.h>

#include "driver.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "interop/v1/interop.grpc.pb.h"
#include "ping/v1/ping.grpc.pb.h"

namespace {

using grpc::ClientContext;
using grpc::Status;
using grpc::StatusCode;
using interop::v1::InteropService;
using ping::v1::PingService;
using Channel = std::shared_ptr<grpc::Channel>;

const std::string kService = "ping.v1.PingService";

// A context that ends a call which does not end by itself.
struct Context : ClientContext {
  explicit Context(std::chrono::milliseconds patience = std::chrono::seconds(30)) {
    set_deadline(std::chrono::system_clock::now() + patience);
  }
};

template <typename T>
void Expect(const char* name, const T& found, const T& expected) {
  if (found != expected) {
    std::ostringstream different;
    different << name << ": " << found << " instead of " << expected;
    throw std::runtime_error(different.str());
  }
}

void ExpectCode(const Status& status, StatusCode expected) {
  if (status.error_code() != expected) {
    throw std::runtime_error("code " + std::to_string(status.error_code()) + " instead of " +
                             std::to_string(expected) + ": " + status.error_message());
  }
}

void ExpectOk(const Status& status) { ExpectCode(status, StatusCode::OK); }

template <typename Request = ping::v1::PingRequest>
Request Ping(uint64_t sequence, std::string payload = "") {
  Request request;
  request.set_message("ping");
  request.set_sequence(sequence);
  request.set_payload(std::move(payload));
  return request;
}

void Unary(Channel channel) {
  Context context;
  const std::string payload("\x00\x01\xff", 3);
  ping::v1::PingResponse reply;
  ExpectOk(PingService::NewStub(channel)->Ping(&context, Ping(7, payload), &reply));
  Expect<std::string>("message", reply.message(), "pong");
  Expect("payload", reply.payload(), payload);
  Expect<uint64_t>("sequence", reply.sequence(), 7);
}

void Watch(Channel channel) {
  Context context;
  ping::v1::WatchRequest request;
  request.set_count(3);
  auto stub = PingService::NewStub(channel);
  auto pongs = stub->Watch(&context, request);
  ping::v1::WatchResponse pong;
  uint64_t count = 0;
  while (pongs->Read(&pong)) Expect("sequence", pong.sequence(), count++);
  ExpectOk(pongs->Finish());
  Expect<uint64_t>("count", count, 3);
}

void Collect(Channel channel) {
  Context context;
  ping::v1::CollectResponse collected;
  auto stub = PingService::NewStub(channel);
  auto pings = stub->Collect(&context, &collected);
  for (int i = 0; i < 3; ++i) {
    pings->Write(Ping<ping::v1::CollectRequest>(0, std::string(100, 'x')));
  }
  pings->WritesDone();
  ExpectOk(pings->Finish());
  Expect<uint64_t>("count", collected.count(), 3);
  Expect<uint64_t>("bytes", collected.bytes(), 300);
}

void Converse(Channel channel) {
  Context context;
  auto stub = PingService::NewStub(channel);
  auto turns = stub->Converse(&context);
  ping::v1::ConverseResponse reply;
  for (uint64_t i = 0; i < 3; ++i) {
    turns->Write(Ping<ping::v1::ConverseRequest>(i));
    if (!turns->Read(&reply)) throw std::runtime_error("the conversation ended early");
    Expect<std::string>("message", reply.message(), "pong");
    Expect("sequence", reply.sequence(), i);
  }
  ping::v1::ConverseRequest end;
  end.set_message("end");
  turns->Write(end);
  Expect("a reply after the end", turns->Read(&reply), false);
  ExpectOk(turns->Finish());
}

void Metadata(Channel channel) {
  Context context;
  const std::string text = "some text", binary("\x00\x7f\x80\xff", 4);
  context.AddMetadata("echo-text", text);
  context.AddMetadata("echo-bin", binary);
  interop::v1::AnswerResponse reply;
  ExpectOk(InteropService::NewStub(channel)->Answer(&context, {}, &reply));
  const auto value = [](const auto& metadata, const char* name) {
    const auto found = metadata.find(name);
    return found == metadata.end() ? std::string("nothing")
                                   : std::string(found->second.data(), found->second.size());
  };
  const auto& initial = context.GetServerInitialMetadata();
  const auto& trailing = context.GetServerTrailingMetadata();
  Expect("initial text", value(initial, "echo-text"), text);
  Expect("initial binary", value(initial, "echo-bin"), binary);
  Expect("trailing text", value(trailing, "trailing-text"), text);
  Expect("trailing binary", value(trailing, "trailing-bin"), binary);
}

void Statuses(Channel channel) {
  auto stub = InteropService::NewStub(channel);
  for (int code = 1; code <= 16; ++code) {
    Context context;
    interop::v1::AnswerRequest request;
    request.set_code(code);
    request.set_message("100 % naïve: 鍵がない\n");
    request.add_details()->PackFrom(Ping(7, std::string("\x00\xff", 2)));
    interop::v1::AnswerResponse reply;
    const Status status = stub->Answer(&context, request, &reply);
    ExpectCode(status, static_cast<StatusCode>(code));
    Expect("message", status.error_message(), request.message());
    Expect("details", status.error_details(), request.SerializeAsString());
  }
}

std::string Unique() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  return std::to_string(getpid()) + " " + std::to_string(now);
}

// A held call that has begun.
struct Held {
  Held(Channel channel, std::chrono::milliseconds patience)
      : context(patience), stub(InteropService::NewStub(channel)) {
    interop::v1::HoldRequest request;
    request.set_id(id);
    messages = stub->Hold(&context, request);
    Expect("first message", messages->Read(&message), true);
  }

  // Waits for the call's end.
  Status Finish() {
    Expect("another message", messages->Read(&message), false);
    return messages->Finish();
  }

  void ExpectServerNoticed() {
    Context patient;
    interop::v1::EndedRequest request;
    request.set_id(id);
    interop::v1::EndedResponse reply;
    ExpectOk(stub->Ended(&patient, request, &reply));
  }

  Context context;
  const std::string id = Unique();
  std::unique_ptr<InteropService::Stub> stub;
  std::unique_ptr<grpc::ClientReader<interop::v1::HoldResponse>> messages;
  interop::v1::HoldResponse message;
};

void Deadline(Channel channel) {
  // Connecting is not to take from the deadline.
  Unary(channel);
  Held held(channel, std::chrono::milliseconds(500));
  ExpectCode(held.Finish(), StatusCode::DEADLINE_EXCEEDED);
  held.ExpectServerNoticed();
}

void Cancel(Channel channel) {
  Held held(channel, std::chrono::seconds(30));
  held.context.TryCancel();
  ExpectCode(held.Finish(), StatusCode::CANCELLED);
  held.ExpectServerNoticed();
}

// The payload that makes a ping, or its pong, so many bytes.
std::string PayloadOf(size_t size) { return std::string(size - 11, 'x'); }

void Sizes(Channel channel) {
  auto stub = PingService::NewStub(channel);
  for (size_t length : {size_t{1}, size_t{1} << 10, size_t{1} << 16, size_t{1} << 20,
                        PayloadOf(kLimit - 1).size()}) {
    Context context;
    ping::v1::PingResponse reply;
    ExpectOk(stub->Ping(&context, Ping(0, std::string(length, 'x')), &reply));
    Expect("payload", reply.payload() == std::string(length, 'x'), true);
  }
  Context context, after;
  ping::v1::PingResponse reply;
  const Status refused = stub->Ping(&context, Ping(0, PayloadOf(kLimit + 1)), &reply);
  if (refused.error_code() != StatusCode::OUT_OF_RANGE) {
    ExpectCode(refused, StatusCode::RESOURCE_EXHAUSTED);
  }
  ExpectOk(stub->Ping(&after, Ping(0), &reply));
}

void Gzip(Channel channel) {
  Context context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  const std::string payload(1 << 16, 'x');
  ping::v1::PingResponse reply;
  ExpectOk(PingService::NewStub(channel)->Ping(&context, Ping(0, payload), &reply));
  Expect("payload", reply.payload() == payload, true);
  for (const char* name : {"request-encoding", "response-encoding"}) {
    const auto found = context.GetServerInitialMetadata().find(name);
    Expect(name, found != context.GetServerInitialMetadata().end() && found->second == "gzip", true);
  }
}

void Parallel(Channel channel) {
  auto stub = PingService::NewStub(channel);
  std::vector<std::future<void>> calls;
  for (uint64_t i = 0; i < 100; ++i) {
    calls.push_back(std::async(std::launch::async, [&stub, i] {
      Context context;
      ping::v1::PingResponse reply;
      ExpectOk(stub->Ping(&context, Ping(i, std::string(1000, 'x')), &reply));
      Expect("sequence", reply.sequence(), i);
    }));
  }
  for (auto& call : calls) call.get();
}

// Ends the server; that this call fails is what it is for.
void Crash(Channel channel) {
  Context context;
  interop::v1::CrashResponse reply;
  InteropService::NewStub(channel)->Crash(&context, {}, &reply);
}

void Lost(Channel channel) {
  Held held(channel, std::chrono::seconds(30));
  Crash(channel);
  ExpectCode(held.Finish(), StatusCode::UNAVAILABLE);
}

void Restart(Channel channel) {
  auto stub = PingService::NewStub(channel);
  ping::v1::PingResponse reply;
  Context before;
  ExpectOk(stub->Ping(&before, Ping(0), &reply));
  Crash(channel);
  Status status;
  for (int attempt = 0; attempt < 10; ++attempt) {
    Context after;
    after.set_wait_for_ready(true);
    status = stub->Ping(&after, Ping(0), &reply);
    // The connection that is being lost may take another call with it.
    if (status.error_code() != StatusCode::UNAVAILABLE) break;
  }
  ExpectOk(status);
}

void Health(Channel channel) {
  auto stub = grpc::health::v1::Health::NewStub(channel);
  const auto check = [&stub](const std::string& service, auto* reply) {
    Context context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    return stub->Check(&context, request, reply);
  };
  grpc::health::v1::HealthCheckResponse reply;
  for (const std::string& service : {std::string(), kService}) {
    ExpectOk(check(service, &reply));
    Expect<int>("status", reply.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  }
  ExpectCode(check("no.such.Service", &reply), StatusCode::NOT_FOUND);
}

void Reflection(Channel channel) {
  using namespace grpc::reflection::v1;
  Context context;
  auto stub = ServerReflection::NewStub(channel);
  auto asking = stub->ServerReflectionInfo(&context);
  ServerReflectionRequest question;
  ServerReflectionResponse answer;

  question.set_list_services("");
  asking->Write(question);
  asking->Read(&answer);
  bool listed = false;
  for (const auto& service : answer.list_services_response().service()) {
    listed |= service.name() == kService;
  }
  Expect("listed", listed, true);

  question.set_file_containing_symbol(kService);
  asking->Write(question);
  asking->Read(&answer);
  int methods = 0;
  for (const auto& encoded : answer.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    file.ParseFromString(encoded);
    if (file.package() == "ping.v1") methods = file.service(0).method_size();
  }
  Expect("methods", methods, 4);
  asking->WritesDone();
  ExpectOk(asking->Finish());
}

const std::map<std::string, void (*)(Channel)> kCases = {
    {"unary", Unary},       {"watch", Watch},         {"collect", Collect},
    {"converse", Converse}, {"metadata", Metadata},   {"status", Statuses},
    {"deadline", Deadline}, {"cancel", Cancel},       {"sizes", Sizes},
    {"gzip", Gzip},         {"parallel", Parallel},   {"lost", Lost},
    {"restart", Restart},   {"health", Health},       {"reflection", Reflection},
};

}  // namespace

std::string RunCase(const std::string& address, const std::string& name) {
  const auto found = kCases.find(name);
  if (found == kCases.end()) return "no such case";
  try {
    found->second(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    return "";
  } catch (const std::exception& different) {
    return different.what();
  }
}
