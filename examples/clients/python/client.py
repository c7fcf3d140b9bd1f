"""A Ping client. The address picks the transport: unix:/tmp/ping.sock or 127.0.0.1:50051."""

import sys

import grpc
from ping.v1.ping_pb2 import PingRequest
from ping.v1.ping_pb2_grpc import PingServiceStub

address = sys.argv[1] if len(sys.argv) > 1 else "unix:/tmp/ping.sock"
with grpc.insecure_channel(address) as channel:
    reply = PingServiceStub(channel).Ping(PingRequest(message="ping"), timeout=5)
    print(reply.message)
