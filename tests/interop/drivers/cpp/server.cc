// The server that our channel meets: Ping, health, reflection and the tests' own service.
#include <unistd.h>

#include <condition_variable>
#include <iostream>
#include <mutex>
#include <set>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "driver.h"
#include "interop/v1/interop.grpc.pb.h"
#include "ping/v1/ping.grpc.pb.h"

namespace {

using grpc::ServerContext;
using grpc::Status;
using interop::v1::HoldResponse;

template <typename Response>
Response Pong(std::string payload, uint64_t sequence) {
  Response response;
  response.set_message("pong");
  response.set_payload(std::move(payload));
  response.set_sequence(sequence);
  return response;
}

std::string Sent(const ServerContext& context, const char* name) {
  const auto found = context.client_metadata().find(name);
  return found == context.client_metadata().end()
             ? std::string()
             : std::string(found->second.data(), found->second.size());
}

class Pings final : public ping::v1::PingService::Service {
  Status Ping(ServerContext* context, const ping::v1::PingRequest* request,
              ping::v1::PingResponse* response) override {
    // The library compresses whether or not the client accepts it, and does not show if it does.
    if (Sent(*context, "answer-encoding") == "gzip") {
      context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    }
    *response = Pong<ping::v1::PingResponse>(request->payload(), request->sequence());
    return Status::OK;
  }

  Status Converse(ServerContext*, grpc::ServerReaderWriter<ping::v1::ConverseResponse,
                                                           ping::v1::ConverseRequest>* turns) override {
    ping::v1::ConverseRequest turn;
    while (turns->Read(&turn) && turn.message() != "end") {
      turns->Write(Pong<ping::v1::ConverseResponse>(turn.payload(), turn.sequence()));
    }
    return Status::OK;
  }

  Status Watch(ServerContext*, const ping::v1::WatchRequest* request,
               grpc::ServerWriter<ping::v1::WatchResponse>* pongs) override {
    for (uint64_t i = 0; i < request->count(); ++i) {
      pongs->Write(Pong<ping::v1::WatchResponse>(request->payload(), i));
    }
    return Status::OK;
  }

  Status Collect(ServerContext*, grpc::ServerReader<ping::v1::CollectRequest>* pings,
                 ping::v1::CollectResponse* collected) override {
    ping::v1::CollectRequest ping;
    while (pings->Read(&ping)) {
      collected->set_count(collected->count() + 1);
      collected->set_bytes(collected->bytes() + ping.payload().size());
    }
    return Status::OK;
  }
};

// The identifiers of the Holds that have ended.
struct Ends {
  std::mutex mutex;
  std::condition_variable changed;
  std::set<std::string> ids;

  void Add(const std::string& id) {
    std::lock_guard lock(mutex);
    ids.insert(id);
    changed.notify_all();
  }
};

// Hold by callbacks, which alone tell of a call's end without being asked again and again.
class Tests final
    : public interop::v1::InteropService::WithCallbackMethod_Hold<interop::v1::InteropService::Service> {
  Status Answer(ServerContext* context, const interop::v1::AnswerRequest* request,
                interop::v1::AnswerResponse*) override {
    for (const std::string kind : {"text", "bin"}) {
      const std::string value = Sent(*context, ("echo-" + kind).c_str());
      if (!value.empty()) {
        context->AddInitialMetadata("echo-" + kind, value);
        context->AddTrailingMetadata("trailing-" + kind, value);
      }
    }
    if (request->code() == 0) return Status::OK;
    return Status(static_cast<grpc::StatusCode>(request->code()), request->message(),
                  request->SerializeAsString());
  }

  grpc::ServerWriteReactor<HoldResponse>* Hold(grpc::CallbackServerContext*,
                                               const interop::v1::HoldRequest* request) override {
    class Holding final : public grpc::ServerWriteReactor<HoldResponse> {
     public:
      Holding(Ends* ends, std::string id) : ends_(ends), id_(std::move(id)) {
        StartWrite(&message_);
      }
      void OnCancel() override { Finish(Status::CANCELLED); }
      void OnDone() override {
        ends_->Add(id_);
        delete this;
      }

     private:
      Ends* const ends_;
      const std::string id_;
      const HoldResponse message_;
    };
    return new Holding(&ends_, request->id());
  }

  Status Ended(ServerContext* context, const interop::v1::EndedRequest* request,
               interop::v1::EndedResponse*) override {
    std::unique_lock lock(ends_.mutex);
    const bool ended = ends_.changed.wait_until(
        lock, context->deadline(), [&] { return ends_.ids.count(request->id()) > 0; });
    return ended ? Status::OK : Status(grpc::StatusCode::DEADLINE_EXCEEDED, "it has not ended");
  }

  Status Crash(ServerContext*, const interop::v1::CrashRequest*,
               interop::v1::CrashResponse*) override {
    _exit(0);
  }

  Ends ends_;
};

}  // namespace

void Serve(const std::string& address) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  Pings pings;
  Tests tests;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&pings);
  builder.RegisterService(&tests);
  auto server = builder.BuildAndStart();
  if (!server) exit(1);
  server->GetHealthCheckService()->SetServingStatus("ping.v1.PingService", true);
  std::cout << "listening on " << address << std::endl;
  server->Wait();
}
