"""The server that our channel meets: Ping, health, reflection and the tests' own service."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from interop.v1 import interop_pb2, interop_pb2_grpc
from ping.v1 import ping_pb2, ping_pb2_grpc


class Ping(ping_pb2_grpc.PingServiceServicer):
    def Ping(self, request, context):
        # The library compresses whether or not the client accepts it, and does not show if it does.
        if ("answer-encoding", "gzip") in context.invocation_metadata():
            context.set_compression(grpc.Compression.Gzip)
        return ping_pb2.PingResponse(
            message="pong", payload=request.payload, sequence=request.sequence
        )

    def Converse(self, requests, context):
        for request in requests:
            if request.message == "end":
                return
            yield ping_pb2.ConverseResponse(
                message="pong", payload=request.payload, sequence=request.sequence
            )

    def Watch(self, request, context):
        for sequence in range(request.count):
            yield ping_pb2.WatchResponse(
                message="pong", payload=request.payload, sequence=sequence
            )

    def Collect(self, requests, context):
        lengths = [len(request.payload) for request in requests]
        return ping_pb2.CollectResponse(count=len(lengths), bytes=sum(lengths))


class Interop(interop_pb2_grpc.InteropServiceServicer):
    def __init__(self):
        self.changed = threading.Condition()
        self.ended = set()

    def Answer(self, request, context):
        sent = dict(context.invocation_metadata())
        initial = [(key, sent[key]) for key in ("echo-text", "echo-bin") if key in sent]
        context.send_initial_metadata(initial)
        trailing = [(key.replace("echo", "trailing"), value) for key, value in initial]
        if request.code:
            trailing.append(("grpc-status-details-bin", request.SerializeToString()))
            codes = {code.value[0]: code for code in grpc.StatusCode}
            context.set_code(codes[request.code])
            context.set_details(request.message)
        context.set_trailing_metadata(trailing)
        return interop_pb2.AnswerResponse()

    def Hold(self, request, context):
        over = threading.Event()

        def end():
            over.set()
            with self.changed:
                self.ended.add(request.id)
                self.changed.notify_all()

        context.add_callback(end)
        yield interop_pb2.HoldResponse()
        over.wait()

    def Ended(self, request, context):
        with self.changed:
            self.changed.wait_for(lambda: request.id in self.ended, context.time_remaining())
        return interop_pb2.EndedResponse()

    def Crash(self, request, context):
        os._exit(0)


def serve(address):
    server = grpc.server(ThreadPoolExecutor(16))
    ping_pb2_grpc.add_PingServiceServicer_to_server(Ping(), server)
    interop_pb2_grpc.add_InteropServiceServicer_to_server(Interop(), server)
    services = ["ping.v1.PingService", reflection.SERVICE_NAME]
    reflection.enable_server_reflection(services, server)
    healthy = health.HealthServicer()
    healthy.set(services[0], health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_insecure_port(address)
    server.start()
    print("listening on", address, flush=True)
    server.wait_for_termination()
