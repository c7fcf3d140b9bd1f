// A Ping client. The address picks the transport: unix:/tmp/ping.sock or 127.0.0.1:50051.
#include <chrono>
#include <iostream>

#include <grpcpp/grpcpp.h>

#include "ping/v1/ping.grpc.pb.h"

int main(int argc, char** argv) {
  const char* address = argc > 1 ? argv[1] : "unix:/tmp/ping.sock";
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  auto stub = ping::v1::PingService::NewStub(channel);

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  ping::v1::PingRequest request;
  request.set_message("ping");
  ping::v1::PingResponse reply;
  grpc::Status status = stub->Ping(&context, request, &reply);
  if (!status.ok()) {
    std::cerr << status.error_message() << std::endl;
    return 1;
  }
  std::cout << reply.message() << std::endl;
}
